#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
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
                 Mapping landing, Mapping zeros);

    void serve(const UserfaultEvent& event);
    void serve_line(Line line);
    /// True where the fault needs nothing more of this thread.
    bool serve_as(Line line, excache::LineState seen);
    void fill_zero(Line line);
    void fetch(Line line);
    void restore(Line line);
    void take_landed(Line line);

    /// After a fault that goes on with a sequence: reads what the guest will want next, and goes on as long as the guest is
    /// there before the page is.
    void read_ahead();
    /// One window: installs its pages, but lands the one that the guest comes to first. True where the guest waits for that one:
    /// it is installed, and plan_ says how to go on.
    bool read_window_ahead(const excache::FaultPlan& plan);
    /// A line that still lies there is installed before.
    std::optional<std::uint32_t> take_landing_slot();

    /// The lines that are worth bringing together with this one.
    excache::LineWindow window_around(Line line);
    /// Claims those of the window that are in `from` too, as far as there is room to spare. Sorted, `line` included.
    std::span<const Line> claim_group(Line line, excache::LineState from);
    /// Claims a line that nobody has asked for.
    bool claim_spare(Line line, excache::LineState from);
    /// Ends the claims of lines that could not be read.
    void give_up(std::span<const Line> lines);
    /// Asks until all pages are there; false where the engine stops or has failed.
    bool read_pages(std::span<const Line> lines);
    Status try_to_read(std::span<const Line> lines);
    Status check_page(const remote_mem::PageRead& page) const;
    /// Installs the lines' pages, which lie in `from` in the same order.
    void install_runs(std::span<const Line> lines, const std::byte* from);
    void finish(Line line, bool was_victim);

    EngineState& state_;
    Withdrawal* withdrawal_;
    std::unique_ptr<remote_mem::PageSession> session_;
    Spinner spinner_;
    Mapping landing_;
    /// Never written to. Copying from it makes pages that the guest can write at once; a mapping of the kernel's zero page
    /// would cost a second fault at the first write, and hardly any page is only read before.
    Mapping zeros_;
    excache::FaultPlan plan_;  ///< of the fault that is being served
    std::array<Line, kGroup> group_{};
    std::array<remote_mem::PageRead, kGroup> reads_{};
};

}  // namespace splitvisor::ept
