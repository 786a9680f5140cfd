#include "vstore/volume_store.h"

#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

namespace splitvisor::vstore {

namespace {

constexpr std::string_view kImageSuffix = ".img";
constexpr std::string_view kDataSuffix = ".raw";
constexpr std::string_view kRecordSuffix = ".meta";
constexpr std::string_view kTemporarySuffix = ".meta.tmp";

constexpr std::size_t kMaxVolumes = 65536;
constexpr std::uint64_t kMaxVolumeBytes = std::uint64_t{1} << 50;
constexpr std::uint64_t kMaxRecordBytes = 4096;

/// How long a command waits for the sessions it has fenced; they wait for the medium at most.
constexpr std::uint64_t kFencePatienceMs = 20'000;

/// The volume whose file has this name and suffix.
std::optional<VolumeId> id_of(std::string_view name, std::string_view suffix)
{
    if (!name.ends_with(suffix)) return std::nullopt;
    name.remove_suffix(suffix.size());
    const auto number = parse_number(name);
    if (!number || std::to_string(*number) != name) return std::nullopt;
    return VolumeId{*number};
}

std::string name_of(VolumeId id)
{
    return "volume " + std::to_string(id.value());
}

Result<VolumeRecord> read_record(const Directory& directory, VolumeId id)
{
    auto file = directory.open_file(Volume::record_name(id), O_RDONLY);
    if (!file) return file.error();
    const auto size = file_size(file->get());
    if (!size) return size.error();
    if (size->value() > kMaxRecordBytes) return Error{ErrorCode::kCorrupt, "volume record: too long"};
    std::vector<std::byte> bytes(size->value());
    SPLITVISOR_TRY(read_all(file->get(), bytes));
    auto record = decode_record(bytes);
    if (record && record->id != id) return Error{ErrorCode::kCorrupt, "volume record: of another volume"};
    return record;
}

Status check_record(const VolumeRecord& record)
{
    if (record.size.value() == 0 || record.size.value() % kBlockAlignment != 0) {
        return Error{ErrorCode::kInvalid, "a volume's size is a positive multiple of 512 bytes"};
    }
    if (record.size.value() > kMaxVolumeBytes) {
        return Error{ErrorCode::kInvalid, "a volume is at most " + format_size(ByteCount{kMaxVolumeBytes})};
    }
    if (!record.image.empty() && !is_valid_image_name(record.image)) {
        return Error{ErrorCode::kInvalid, "not an image name: " + record.image};
    }
    return {};
}

}  // namespace

class VolumeStore::Claim {
  public:
    Claim(VolumeStore& store, VolumeId id) : store_{store}, id_{id}
    {
        std::unique_lock lock{store_.mutex_};
        store_.claim_ended_.wait(lock, [&] { return !store_.claimed_.contains(id_); });
        store_.claimed_.insert(id_);
    }
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;
    ~Claim()
    {
        const std::lock_guard lock{store_.mutex_};
        store_.claimed_.erase(id_);
        store_.claim_ended_.notify_all();
    }

  private:
    VolumeStore& store_;
    const VolumeId id_;
};

VolumeStore::VolumeStore(Directory top, Directory images, Directory volumes, Fd lock)
    : top_{std::move(top)},
      images_directory_{std::move(images)},
      volumes_directory_{std::move(volumes)},
      lock_{std::move(lock)}
{
}

Result<std::unique_ptr<VolumeStore>> VolumeStore::open(const Options& options)
{
    auto top = Directory::open(options.directory);
    if (!top) return top.error();
    auto images = Directory::open(options.directory + "/images");
    if (!images) return images.error();
    auto volumes = Directory::open(options.directory + "/volumes");
    if (!volumes) return volumes.error();
    SPLITVISOR_TRY(top->sync());

    auto lock = top->open_file("lock", O_RDWR | O_CREAT);
    if (!lock) return lock.error();
    if (::flock(lock->get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return Error::from_errno("flock " + options.directory + "/lock");
        return Error{ErrorCode::kUnavailable, "another storage monitor uses " + options.directory};
    }

    std::unique_ptr<VolumeStore> store{
        new VolumeStore{std::move(*top), std::move(*images), std::move(*volumes), std::move(*lock)}};
    SPLITVISOR_TRY(store->load_volumes());
    SPLITVISOR_TRY(store->set_capacity(options.capacity));
    return store;
}

Status VolumeStore::load_volumes()
{
    const auto names = volumes_directory_.regular_files();
    if (!names) return names.error();
    for (const auto& name : *names) {
        if (id_of(name, kTemporarySuffix)) {
            SPLITVISOR_TRY(volumes_directory_.remove(name));
        } else if (const auto half_made = id_of(name, kDataSuffix)) {
            if (std::ranges::find(*names, Volume::record_name(*half_made)) != names->end()) continue;
            log_info("half-made volume cleared", field("volume", half_made->value()));
            SPLITVISOR_TRY(volumes_directory_.remove(name));
        } else if (const auto id = id_of(name, kRecordSuffix)) {
            if (auto loaded = load_volume(*id); !loaded) {
                log_error("volume not served", field("volume", id->value()) + field("error", loaded.error()));
            }
        }
    }
    return {};
}

Status VolumeStore::load_volume(VolumeId id)
{
    // A volume that cannot be served still owns its id, so that nobody makes an empty one in its place.
    sizes_[id] = ByteCount{0};
    auto record = read_record(volumes_directory_, id);
    if (!record) return record.error();
    SPLITVISOR_TRY(check_record(*record));
    sizes_[id] = record->size;
    const auto file = volumes_directory_.open_file(Volume::file_name(id), O_RDWR);
    if (!file) return file.error();
    const auto size = file_size(file->get());
    if (!size) return size.error();
    if (*size != record->size)
        return Error{ErrorCode::kCorrupt, "the data file has another size than the volume"};
    served_[id] = std::make_shared<Volume>(volumes_directory_, std::move(*record));
    return {};
}

Status VolumeStore::set_capacity(const std::optional<ByteCount>& wanted)
{
    if (wanted) {
        capacity_ = *wanted;
        return {};
    }
    const auto free = volumes_directory_.free_space();
    if (!free) return free.error();
    capacity_ = *free;
    for (const auto& [id, volume] : served_) {
        const auto file = volume->open_file();
        if (!file) return file.error();
        const auto occupied = allocated_bytes(file->get());
        if (!occupied) return occupied.error();
        capacity_ = capacity_ + *occupied;
    }
    return {};
}

ByteCount VolumeStore::used() const
{
    const std::lock_guard lock{mutex_};
    return used_locked();
}

ByteCount VolumeStore::used_locked() const
{
    ByteCount sum{};
    for (const auto& [id, size] : sizes_) sum = sum + size;
    return sum;
}

std::size_t VolumeStore::volume_count() const
{
    const std::lock_guard lock{mutex_};
    return sizes_.size();
}

std::shared_ptr<Volume> VolumeStore::find(VolumeId id) const
{
    const std::lock_guard lock{mutex_};
    const auto found = served_.find(id);
    return found == served_.end() ? nullptr : found->second;
}

std::vector<std::string> VolumeStore::images() const
{
    std::vector<std::string> images;
    const auto names = images_directory_.regular_files();
    if (!names) return images;
    for (std::string_view name : *names) {
        if (!name.ends_with(kImageSuffix)) continue;
        name.remove_suffix(kImageSuffix.size());
        if (is_valid_image_name(name)) images.emplace_back(name);
    }
    std::ranges::sort(images);
    return images;
}

Status VolumeStore::create(const VolumeRecord& wanted)
{
    SPLITVISOR_TRY(check_record(wanted));
    const Claim claim{*this, wanted.id};
    if (const auto existing = find(wanted.id)) {
        const auto& record = existing->record_;
        if (record.size != wanted.size || record.image != wanted.image ||
            !same_capability(record.capability, wanted.capability)) {
            return Error{ErrorCode::kExists, name_of(wanted.id) + " exists and is another"};
        }
        return wanted.epoch > existing->epoch() ? raise_epoch(*existing, wanted.epoch) : Status{};
    }

    SPLITVISOR_TRY(reserve(wanted));
    if (auto made = make_files(wanted); !made) {
        // What cannot be removed now is cleared at the next start: without a record it is no volume.
        static_cast<void>(remove_files(wanted.id).ok());
        forget(wanted.id);
        return made.error().in(name_of(wanted.id));
    }
    const std::lock_guard lock{mutex_};
    served_[wanted.id] = std::make_shared<Volume>(volumes_directory_, wanted);
    return {};
}

Status VolumeStore::reserve(const VolumeRecord& wanted)
{
    const std::lock_guard lock{mutex_};
    if (sizes_.contains(wanted.id)) {
        return Error{ErrorCode::kCorrupt, name_of(wanted.id) + " exists and its files contradict each other"};
    }
    if (sizes_.size() >= kMaxVolumes) return Error{ErrorCode::kNoRoom, "no room for a further volume"};
    const auto in_use = used_locked();
    const ByteCount free = in_use < capacity_ ? capacity_ - in_use : ByteCount{0};
    if (wanted.size > free)
        return Error{ErrorCode::kNoRoom, "not enough room: " + format_size(free) + " are free"};
    sizes_[wanted.id] = wanted.size;
    return {};
}

Status VolumeStore::make_files(const VolumeRecord& wanted)
{
    auto file = volumes_directory_.open_file(Volume::file_name(wanted.id), O_RDWR | O_CREAT | O_TRUNC);
    if (!file) return file.error();
    SPLITVISOR_TRY(fill_file(*file, wanted));
    if (::fsync(file->get()) != 0) return Error::from_errno("fsync");
    SPLITVISOR_TRY(volumes_directory_.sync());
    return volumes_directory_.write_atomically(Volume::record_name(wanted.id), encode(wanted));
}

Status VolumeStore::fill_file(const Fd& file, const VolumeRecord& wanted)
{
    if (!wanted.image.empty()) {
        auto image = images_directory_.open_file(wanted.image + std::string{kImageSuffix}, O_RDONLY);
        if (!image) return image.error();
        const auto size = file_size(image->get());
        if (!size) return size.error();
        if (*size > wanted.size) {
            return Error{ErrorCode::kInvalid,
                         "image " + wanted.image + " needs a volume of at least " + format_size(*size)};
        }
        SPLITVISOR_TRY(copy_sparse(image->get(), file.get(), *size));
    }
    if (::ftruncate(file.get(), narrow<off_t>(wanted.size.value())) != 0)
        return Error::from_errno("ftruncate");
    return {};
}

Status VolumeStore::remove_files(VolumeId id)
{
    // The record goes first: without it the data is no volume.
    SPLITVISOR_TRY(volumes_directory_.remove(Volume::record_name(id)));
    return volumes_directory_.remove(Volume::file_name(id));
}

void VolumeStore::forget(VolumeId id)
{
    const std::lock_guard lock{mutex_};
    served_.erase(id);
    sizes_.erase(id);
}

Status VolumeStore::remove(VolumeId id)
{
    const Claim claim{*this, id};
    if (const auto volume = find(id)) {
        volume->removed_.store(true, std::memory_order_release);
        volume->gate().close();
        SPLITVISOR_TRY(volume->gate().expel_all(now_ms() + kFencePatienceMs));
    }
    SPLITVISOR_TRY(remove_files(id));
    forget(id);
    return {};
}

Status VolumeStore::set_epoch(VolumeId id, Epoch epoch)
{
    const Claim claim{*this, id};
    const auto volume = find(id);
    if (!volume) return Error{ErrorCode::kNotFound, name_of(id) + " does not exist"};
    if (epoch < volume->epoch()) {
        return Error{ErrorCode::kStale, "lease epoch " + std::to_string(epoch.value()) + " is older than " +
                                            std::to_string(volume->epoch().value())};
    }
    return raise_epoch(*volume, epoch);
}

Status VolumeStore::raise_epoch(Volume& volume, Epoch epoch)
{
    if (epoch > volume.epoch()) {
        auto record = volume.record_;
        record.epoch = epoch;
        SPLITVISOR_TRY(volumes_directory_.write_atomically(Volume::record_name(volume.id()), encode(record)));
        volume.epoch_.store(epoch.value(), std::memory_order_release);
        volume.old_epoch_inside_ = true;
    }
    // Asked again after a timeout, it has to wait again.
    if (volume.old_epoch_inside_) SPLITVISOR_TRY(volume.gate().expel_all(now_ms() + kFencePatienceMs));
    volume.old_epoch_inside_ = false;
    return {};
}

}  // namespace splitvisor::vstore
