#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/log.h"
#include "base/text.h"
#include "controller/wire/monitor.h"

namespace splitvisor::wire {

namespace {

constexpr ByteCount kMaxTokenBytes{4096};
constexpr std::string_view kWhiteSpace = " \t\r\n";

/// The enrolment token in a file, without the white space around it.
Result<std::string> read_token(const std::string& path)
{
    const auto text = read_file(path, kMaxTokenBytes);
    if (!text) return text.error().in("--token-file");
    const auto first = text->find_first_not_of(kWhiteSpace);
    if (first == std::string::npos) return Error{ErrorCode::kInvalid, "--token-file: " + path + " is empty"};
    return text->substr(first, text->find_last_not_of(kWhiteSpace) + 1 - first);
}

int complain(const CLI::App& app, const std::string& what, int status)
{
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), what.c_str());
    return status;
}

}  // namespace

int monitor_main(CLI::App& app, int argc, char** argv, const std::function<Status(AgentOptions)>& serve)
{
    AgentOptions agent;
    std::string token_file;
    app.set_version_flag("--version", SPLITVISOR_VERSION);
    app.add_option("--name", agent.name, "name of this component")->required();
    app.add_option("--controller", agent.controller, "HOST:PORT of the controller")->required();
    app.add_option("--token-file", token_file, "file with the enrolment token")->required();
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return error.get_exit_code() == 0 ? app.exit(error) : complain(app, error.what(), 2);
    }
    if (!is_valid_name(agent.name)) return complain(app, "--name: not a component name: " + agent.name, 2);
    auto token = read_token(token_file);
    if (!token) return complain(app, token.error().message(), 2);
    agent.token = std::move(*token);
    start_log(app.get_name());
    const auto served = serve(std::move(agent));
    if (served) return 0;
    return complain(app, served.error().message(), served.error().code() == ErrorCode::kInvalid ? 2 : 1);
}

}  // namespace splitvisor::wire
