#include "controller/api/tokens.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <span>
#include <utility>

#include "base/fd.h"
#include "base/text.h"
#include "controller/model/records.h"

namespace splitvisor::controller {

namespace {

std::string sha256(std::string_view text)
{
    std::string digest(SHA256_DIGEST_LENGTH, '\0');
    ::SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
             reinterpret_cast<unsigned char*>(digest.data()));
    return digest;
}

/// A new file appears whole or not at all.
Status write_secret(const std::string& path, const std::string& secret)
{
    const std::string fresh = path + ".new";
    const Fd file{::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
    if (!file.valid()) return Error::from_errno("open " + fresh);
    if (::fchmod(file.get(), 0600) != 0) return Error::from_errno("fchmod " + fresh);
    SPLITVISOR_TRY(write_all(file.get(), std::as_bytes(std::span{secret})));
    if (::fsync(file.get()) != 0) return Error::from_errno("fsync " + fresh);
    if (::rename(fresh.c_str(), path.c_str()) != 0) return Error::from_errno("rename " + fresh);
    return {};
}

}  // namespace

Result<Token> Token::load(MetaStore& store, const std::string& name, const std::string& path)
{
    const std::string key = "token/" + name;
    const auto entry = store.get(key);
    if (!entry) return entry.error();
    if (*entry) {
        auto hash = from_hex((*entry)->value);
        if (!hash || hash->size() != SHA256_DIGEST_LENGTH) {
            return Error{ErrorCode::kCorrupt, "state database: " + key + " is no hash"};
        }
        return Token{std::move(*hash)};
    }
    const std::string secret = new_capability() + new_capability();
    // The file first: a hash whose secret nobody has would lock everyone out.
    SPLITVISOR_TRY(write_secret(path, secret + "\n"));
    const std::string hash = sha256(secret);
    const std::array changes = {Change{key, to_hex(hash)}};
    const std::array guards = {Guard{key, 0}};
    SPLITVISOR_TRY(store.commit(guards, changes));
    return Token{hash};
}

bool Token::matches(std::string_view secret) const
{
    const std::string hash = sha256(secret);
    return ::CRYPTO_memcmp(hash.data(), hash_.data(), hash_.size()) == 0;
}

}  // namespace splitvisor::controller
