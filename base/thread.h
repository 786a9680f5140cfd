#pragma once

#include <pthread.h>

#include <functional>
#include <string>
#include <thread>

namespace splitvisor {

/// A named thread that is joined when its owner goes. The owner tells it to end before that.
/// The name, of at most 15 characters, is what `ps -L` and gdb show.
class Thread {
  public:
    Thread() = default;
    Thread(std::string name, std::function<void()> body)
        : thread_{[name = std::move(name), body = std::move(body)] {
              ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
              body();
          }}
    {
    }
    Thread(Thread&&) = default;
    Thread& operator=(Thread&&) = default;
    ~Thread() { join(); }

    void join()
    {
        if (thread_.joinable()) thread_.join();
    }
    [[nodiscard]] pthread_t handle() { return thread_.native_handle(); }

  private:
    std::thread thread_;
};

}  // namespace splitvisor
