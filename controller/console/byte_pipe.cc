#include "controller/console/byte_pipe.h"

#include <utility>

namespace splitvisor::controller {

void BytePipe::attach(Side side, std::shared_ptr<ByteEnd> end)
{
    std::optional<Waiting> waiting;
    std::optional<std::string> closed;
    {
        const std::lock_guard lock{mutex_};
        closed = closed_;
        if (!closed) {
            at(side).end = end;
            waiting = std::exchange(at(side).waiting, std::nullopt);
        }
    }
    if (closed) {
        end->close(*closed);
    } else if (waiting) {
        end->deliver(std::move(waiting->bytes), std::move(waiting->taken));
    }
}

void BytePipe::pass(Side from, std::string bytes, std::function<void()> taken)
{
    std::shared_ptr<ByteEnd> target;
    {
        const std::lock_guard lock{mutex_};
        if (closed_) return;
        End& other = at(from == Side::kUser ? Side::kConsole : Side::kUser);
        target = other.end;
        if (!target) {
            other.waiting = Waiting{std::move(bytes), std::move(taken)};
            return;
        }
    }
    target->deliver(std::move(bytes), std::move(taken));
}

void BytePipe::close(const std::string& reason)
{
    std::array<End, 2> ends;
    {
        const std::lock_guard lock{mutex_};
        if (closed_) return;
        closed_ = reason;
        ends = std::exchange(ends_, {});
    }
    for (const End& end : ends) {
        if (end.end) end.end->close(reason);
    }
}

}  // namespace splitvisor::controller
