#include "controller/vnodectl/terminal.h"

#include <unistd.h>

namespace splitvisor::vnodectl {

RawTerminal::RawTerminal() : is_terminal_{::isatty(STDIN_FILENO) == 1 && ::tcgetattr(STDIN_FILENO, &before_) == 0} {}

void RawTerminal::enter()
{
    if (!is_terminal_ || is_raw_) return;
    termios raw = before_;
    ::cfmakeraw(&raw);
    is_raw_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

void RawTerminal::leave()
{
    if (!is_raw_) return;
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
    is_raw_ = false;
}

}  // namespace splitvisor::vnodectl
