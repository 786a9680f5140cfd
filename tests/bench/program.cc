#include "tests/bench/program.h"

#include <iostream>
#include <string>

#include "base/text.h"

namespace splitvisor::bench {

Result<ept::Mechanism> parse_mechanism(std::string_view text)
{
    if (text == "auto") return ept::Mechanism::kAuto;
    if (text == "move") return ept::Mechanism::kMove;
    if (text == "write-protect") return ept::Mechanism::kWriteProtect;
    return Error{ErrorCode::kInvalid, "'" + std::string{text} + "' is not a mechanism; there are auto, move, write-protect"};
}

Result<ByteCount> parse_excache(std::string_view text, ByteCount memory)
{
    if (!text.ends_with('%')) return parse_size(text);
    const auto percent = parse_number(text.substr(0, text.size() - 1));
    if (!percent || *percent == 0 || *percent > 100) {
        return Error{ErrorCode::kInvalid, "'" + std::string{text} + "' is not a part of the memory; write 1% to 100%"};
    }
    return PageCount::of(ByteCount{memory.value() / 100 * *percent}).bytes();
}

int finish(std::string_view program, const Result<Report>& report, bool json)
{
    const auto fail = [&](const Error& error) {
        std::cerr << program << ": " << error.message() << '\n';
        return 1;
    };
    if (!report) return fail(report.error());
    json ? print_json(std::cout, *report) : print_table(std::cout, *report);
    for (const auto& row : report->rows) {
        if (!row.verified) return fail(Error{ErrorCode::kCorrupt, row.name + " has a wrong result"});
    }
    return 0;
}

}  // namespace splitvisor::bench
