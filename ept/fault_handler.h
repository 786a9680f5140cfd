#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <span>

#include "base/mapping.h"
#include "ept/engine_state.h"
#include "remote-mem/page_store.h"

namespace splitvisor::ept {

/// One thread that serves faults: reads events of the userfaultfd and brings each page from where it is.
/// It never touches guest memory itself and holds no lock while it waits for the network.
class FaultHandler {
  public:
    static Result<std::unique_ptr<FaultHandler>> create(EngineState& state, Withdrawal* withdrawal,
                                                        std::unique_ptr<remote_mem::PageSession> session);

    /// Runs until the engine stops. A signal makes it look.
    void run();

  private:
    /// The most lines that one fault brings.
    static constexpr std::uint32_t kGroup = excache::FaultStreams::kLargestWindow;

    FaultHandler(EngineState& state, Withdrawal* withdrawal, std::unique_ptr<remote_mem::PageSession> session,
                 UserfaultReader reader, Mapping landing, Mapping zeros);

    void serve(const UserfaultEvent& event);
    void serve_line(Line line);
    /// True where the fault needs nothing more of this thread.
    bool serve_as(Line line, excache::LineState seen);
    void fill_zero(Line line);
    void fetch(Line line);
    void restore(Line line);

    /// The lines that are worth bringing together with this one.
    excache::LineWindow window_around(Line line);
    /// Claims those of the window that are in `from` too, as far as there is room to spare. Sorted, `line` included.
    std::span<const Line> claim_group(Line line, excache::LineState from);
    bool read_pages(std::span<const Line> lines);
    Status check_page(const remote_mem::PageRead& page) const;
    /// Installs the lines' pages, which lie in `from` in the same order.
    void install_runs(std::span<const Line> lines, const std::byte* from);
    void finish(Line line, bool was_victim);

    EngineState& state_;
    Withdrawal* withdrawal_;
    std::unique_ptr<remote_mem::PageSession> session_;
    UserfaultReader reader_;
    Mapping landing_;
    /// Never written to. Copying from it makes pages that the guest can write at once; a mapping of the kernel's zero page
    /// would cost a second fault at the first write, and hardly any page is only read before.
    Mapping zeros_;
    std::array<Line, kGroup> group_{};
    std::array<remote_mem::PageRead, kGroup> reads_{};
};

}  // namespace splitvisor::ept
