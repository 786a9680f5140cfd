#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/units.h"
#include "remote-mem/page_store.h"

namespace splitvisor::remote_mem {

// What VMMs and memory monitors say to each other, as heads of fabric messages; little-endian.
//
// clang-format off
//   request  head                                data         reply head          reply data
//   kCheck   RequestHeader                       -            UpdateReply         -
//   kRead    RequestHeader, count x index        -            count x ReadEntry   each kStored page, in order
//   kWrite   RequestHeader, count x WriteEntry   count pages  UpdateReply         -
//   kDrop    RequestHeader, count x DropEntry    -            UpdateReply         -
// clang-format on
//
// An index is a page's number within its vRegion, 32 bits wide. A reply with a status carries no head; its data is the
// error's text. Requests of one connection are answered in their order. Each stands for itself: nothing is
// remembered between them.

enum class Request : std::uint16_t { kCheck = 1, kRead = 2, kWrite = 3, kDrop = 4 };

/// Pages in one read or write: 1 MiB of data.
inline constexpr std::uint32_t kMaxRequestPages = 256;
/// Pages in one drop: the head stays below fabric::kMaxHeadBytes.
inline constexpr std::uint32_t kMaxDropPages = 4'000;

struct RequestHeader {
    std::uint64_t region;
    std::uint64_t epoch;
    Capability capability;
    std::uint32_t page_count;
    std::uint32_t reserved;  ///< 0
};
static_assert(sizeof(RequestHeader) == 40);
static_assert(offsetof(RequestHeader, capability) == 16);
static_assert(offsetof(RequestHeader, page_count) == 32);

/// A page and the version that it gets, or with which it is dropped.
struct WriteEntry {
    std::uint64_t version;
    std::uint32_t index;
    std::uint32_t reserved;  ///< 0
};
static_assert(sizeof(WriteEntry) == 16);
static_assert(offsetof(WriteEntry, index) == 8);
using DropEntry = WriteEntry;

enum class PageState : std::uint32_t {
    kAbsent = 0,   ///< never written, or dropped; `version` is that of the drop
    kStored = 1,   ///< its 4 KiB are among the data
    kZero = 2,     ///< holds nothing but zeros, which do not travel
    kCorrupt = 3,  ///< failed its checksum in the mComponent's memory
};

struct ReadEntry {
    std::uint64_t version;
    PageState state;
    std::uint32_t reserved;  ///< 0
};
static_assert(sizeof(ReadEntry) == 16);
static_assert(offsetof(ReadEntry, state) == 8);

struct UpdateReply {
    std::uint32_t stale_pages;  ///< pages left as they are because they hold a newer version; not an error
    std::uint32_t reserved;     ///< 0
};
static_assert(sizeof(UpdateReply) == 8);

static_assert(std::is_trivially_copyable_v<RequestHeader> && std::is_trivially_copyable_v<WriteEntry> &&
              std::is_trivially_copyable_v<ReadEntry> && std::is_trivially_copyable_v<UpdateReply>);

/// The longest error text in a reply; longer ones are cut.
inline constexpr std::size_t kMaxErrorBytes = 512;

/// Message::status of an error.
[[nodiscard]] inline std::uint16_t status_of(ErrorCode code)
{
    return static_cast<std::uint16_t>(1 + static_cast<int>(code));
}

/// The ErrorCode of a reply's status; a number that we do not know is kIo.
[[nodiscard]] inline ErrorCode code_of(std::uint16_t status)
{
    const int code = status - 1;
    return code <= static_cast<int>(ErrorCode::kIo) ? static_cast<ErrorCode>(code) : ErrorCode::kIo;
}

}  // namespace splitvisor::remote_mem
