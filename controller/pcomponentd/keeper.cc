// vnode-keeper RUN_DIR VMM [ARGUMENT]...: the parent of one vnode-vmm. It outlives pcomponentd, so that the VMM's exit
// status is known whoever watches: RUN_DIR/pid holds "PID START_TIME" while the VMM runs (START_TIME as in
// /proc/PID/stat, field 22), RUN_DIR/exit its status, as from a shell, once it has ended.

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace {

/// The start time of a process that has not been waited for; 0 where it cannot be read.
unsigned long long start_time_of(pid_t pid)
{
    char path[64];
    ::snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE* file = ::fopen(path, "re");
    if (file == nullptr) return 0;
    char text[1024] = {};
    const bool has_text = ::fgets(text, sizeof text, file) != nullptr;
    ::fclose(file);
    // The second field is the program's name in parentheses and can hold anything.
    const char* rest = has_text ? ::strrchr(text, ')') : nullptr;
    unsigned long long start_time = 0;
    if (rest == nullptr) return 0;
    if (::sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                 &start_time) != 1) {
        return 0;
    }
    return start_time;
}

/// The file appears whole.
bool write_file(const std::string& path, const std::string& text)
{
    const std::string fresh = path + ".new";
    const int file = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) return false;
    const bool written = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    ::close(file);
    return written && ::rename(fresh.c_str(), path.c_str()) == 0;
}

bool redirect(const std::string& run_dir)
{
    const int log = ::open((run_dir + "/vmm.log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    return log >= 0 && nothing >= 0 && ::dup2(nothing, 0) == 0 && ::dup2(log, 1) == 1 && ::dup2(log, 2) == 2;
}

[[noreturn]] void become_vmm(char** arguments)
{
    ::signal(SIGTERM, SIG_DFL);
    ::signal(SIGINT, SIG_DFL);
    ::signal(SIGHUP, SIG_DFL);
    ::execv(arguments[0], arguments);
    ::fprintf(stderr, "%s cannot be run: %s\n", arguments[0], ::strerror(errno));
    ::_exit(127);
}

int wait_for(pid_t pid)
{
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) return -1;
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

int main(int argc, char** argv)
{
    if (argc < 3) {
        ::fprintf(stderr, "vnode-keeper: usage: vnode-keeper RUN_DIR VMM [ARGUMENT]...\n");
        return 2;
    }
    const std::string run_dir = argv[1];
    ::signal(SIGTERM, SIG_IGN);
    ::signal(SIGINT, SIG_IGN);
    ::signal(SIGHUP, SIG_IGN);
    if (!redirect(run_dir)) {
        ::fprintf(stderr, "vnode-keeper: %s: %s\n", run_dir.c_str(), ::strerror(errno));
        return 1;
    }
    // The VMM begins when its pid is written down, so that none can run unnoticed.
    int gate[2];
    if (::pipe2(gate, O_CLOEXEC) != 0) return 1;
    const pid_t pid = ::fork();
    if (pid < 0) return 1;
    if (pid == 0) {
        char go = 0;
        ::close(gate[1]);
        if (::read(gate[0], &go, 1) != 1) ::_exit(127);
        become_vmm(argv + 2);
    }
    const std::string identity = std::to_string(pid) + " " + std::to_string(start_time_of(pid)) + "\n";
    const bool is_noted = write_file(run_dir + "/pid", identity);
    if (is_noted && ::write(gate[1], "g", 1) != 1) ::fprintf(stderr, "vnode-keeper: %s\n", ::strerror(errno));
    ::close(gate[0]);
    ::close(gate[1]);
    const int status = wait_for(pid);
    return write_file(run_dir + "/exit", std::to_string(status) + "\n") ? 0 : 1;
}
