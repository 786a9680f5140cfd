#pragma once

#include <array>
#include <cstring>
#include <vector>

#include "base/units.h"
#include "remote-mem/page_store.h"

namespace splitvisor::remote_mem {

using Page = std::vector<std::byte>;

/// A page whose every word tells which line and version it is: a mix of two is noticed.
inline Page page_of(std::uint64_t line, std::uint64_t version)
{
    Page page(kPageBytes);
    const std::uint64_t word = (line << 32) ^ (version * 0x9e3779b97f4a7c15u) ^ 1;
    for (std::size_t offset = 0; offset < kPageBytes; offset += sizeof word) {
        std::memcpy(page.data() + offset, &word, sizeof word);
    }
    return page;
}

inline PageWrite write_of(Line line, const Page& page, std::uint64_t version)
{
    return {line, page.data(), Version{version}};
}

/// Writes one page.
inline Status write_page(PageSession& session, std::uint32_t line, std::uint64_t version)
{
    const auto page = page_of(line, version);
    const auto write = write_of(Line{line}, page, version);
    return session.write({&write, 1});
}

struct ReadBack {
    Status status;
    bool present = false;
    Version version;
    Page page;
};

/// Reads one page into memory that held 0xee.
inline ReadBack read_page(PageSession& session, std::uint32_t line)
{
    ReadBack back;
    back.page.assign(kPageBytes, std::byte{0xee});
    PageRead read{.line = Line{line}, .into = back.page.data()};
    back.status = session.read({&read, 1});
    back.present = read.present;
    back.version = read.version;
    return back;
}

/// True where the line holds what write_page stored with this version.
inline bool holds(PageSession& session, std::uint32_t line, std::uint64_t version)
{
    const auto back = read_page(session, line);
    return back.status.ok() && back.present && back.version == Version{version} &&
           back.page == page_of(line, version);
}

}  // namespace splitvisor::remote_mem
