#pragma once

#include <condition_variable>
#include <mutex>

#include "base/thread.h"
#include "controller/gmm/memory_manager.h"
#include "controller/gsm/storage_manager.h"
#include "controller/model/catalog.h"

namespace splitvisor::controller {

/// Deletes on the components what no vNode and no volume uses any more, and tries again while a component is away.
class Reaper {
  public:
    Reaper(Catalog& catalog, ComponentHub& hub, MemoryManager& memory, StorageManager& storage);
    ~Reaper();
    Reaper(const Reaper&) = delete;
    Reaper& operator=(const Reaper&) = delete;

    /// Works on all deletions whose component is connected, once, before it returns. Called by any thread.
    void work();
    /// Has the reaper's own thread do so.
    void wake();

  private:
    void run();
    [[nodiscard]] Status remove(const DeletionRecord& deletion);

    Catalog& catalog_;
    ComponentHub& hub_;
    MemoryManager& memory_;
    StorageManager& storage_;
    std::mutex work_mutex_;  ///< one round at a time
    std::mutex mutex_;
    std::condition_variable changed_;
    bool awake_ = false;
    bool stopping_ = false;
    Thread thread_;
};

}  // namespace splitvisor::controller
