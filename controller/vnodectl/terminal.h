#pragma once

#include <termios.h>

namespace splitvisor::vnodectl {

/// Standard input as a raw terminal: every key goes to the guest. Left again by the destructor.
class RawTerminal {
  public:
    RawTerminal();
    ~RawTerminal() { leave(); }
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;

    /// False where standard input is a pipe or a file: enter() then does nothing.
    [[nodiscard]] bool is_terminal() const { return is_terminal_; }
    void enter();
    void leave();

  private:
    termios before_{};
    bool is_terminal_;
    bool is_raw_ = false;
};

}  // namespace splitvisor::vnodectl
