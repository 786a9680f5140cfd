#include "controller/components/wire_command.h"

#include "control.pb.h"

namespace splitvisor::controller {

namespace {

class Filler {
  public:
    explicit Filler(wire::proto::Command& message) : message_{message} {}

    void operator()(const CreateRegion& create)
    {
        auto& body = *message_.mutable_create_region();
        body.set_region(create.region.value());
        body.set_size_bytes(create.size.value());
        body.set_capability(create.capability);
        body.set_epoch(create.epoch.value());
    }
    void operator()(const DeleteRegion& erase) { message_.mutable_delete_region()->set_region(erase.region.value()); }
    void operator()(const CreateVolume& create)
    {
        auto& body = *message_.mutable_create_volume();
        body.set_volume(create.volume.value());
        body.set_size_bytes(create.size.value());
        body.set_image(create.image);
        body.set_capability(create.capability);
        body.set_epoch(create.epoch.value());
    }
    void operator()(const DeleteVolume& erase) { message_.mutable_delete_volume()->set_volume(erase.volume.value()); }
    void operator()(const SetVolumeEpoch& set)
    {
        auto& body = *message_.mutable_set_volume_epoch();
        body.set_volume(set.volume.value());
        body.set_epoch(set.epoch.value());
    }
    void operator()(const StartVnode& start)
    {
        auto& body = *message_.mutable_start_vnode();
        body.set_name(start.name);
        body.set_spec_json(start.spec_json);
    }
    void operator()(const StopVnode& stop)
    {
        auto& body = *message_.mutable_stop_vnode();
        body.set_name(stop.name);
        body.set_grace_ms(stop.grace_ms);
    }
    void operator()(const ControlVnode& control)
    {
        auto& body = *message_.mutable_control_vnode();
        body.set_name(control.name);
        body.set_command_json(control.command_json);
    }
    void operator()(const ForgetVnode& forget) { message_.mutable_forget_vnode()->set_name(forget.name); }
    void operator()(const OpenConsole& open)
    {
        auto& body = *message_.mutable_open_console();
        body.set_name(open.name);
        body.set_session(open.session);
    }

  private:
    wire::proto::Command& message_;
};

}  // namespace

void fill_command(const Command& command, wire::proto::Command& message)
{
    std::visit(Filler{message}, command);
}

ErrorCode error_code_of(std::uint32_t number)
{
    return number <= static_cast<std::uint32_t>(ErrorCode::kIo) ? static_cast<ErrorCode>(number) : ErrorCode::kIo;
}

}  // namespace splitvisor::controller
