// What a plugin can send down its connection, into a session with open calls: no input may crash it, leave a stream
// behind, or make it hold more than its limits.
//
// Input: steps, each one control byte. 0..199: that many bytes follow and are fed; 200..219: output is drained (and
// dropped); 220..239: a stream is reset; 240..254: a call is opened; 255: the session is told to close when idle.

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "core/assert.h"
#include "core/byte_buffer.h"
#include "grpc_bridge/grpc_framing.h"
#include "grpc_bridge/h2_memory.h"
#include "grpc_bridge/h2_session.h"

namespace {

using namespace dpa;

constexpr size_t kMessageBytesMax = 1u << 16;
constexpr std::string_view kBody[] = {{"\0\0\0\0\3", 5}, "abc"};
const H2Field kFields[] = {{":method", "POST"},
                           {":scheme", "http"},
                           {":path", "/a.B/C"},
                           {":authority", "localhost"},
                           {"content-type", "application/grpc"},
                           {"te", "trailers"}};

// Reads replies as GrpcCall does, without a worker.
class FuzzStream final : public H2Stream {
 public:
  explicit FuzzStream(BytePool& pool) : reader_(pool, kMessageBytesMax) {}

  using H2Stream::session;
  bool ended() const { return ended_; }
  void Begin() {
    ended_ = false;
    fields_ = GrpcResponseFields();
    reader_.Clear();
  }
  void Reset() {
    session()->Reset(*this);
    ended_ = true;
  }

 private:
  void OnField(std::string_view name, std::string_view value) override {
    DPA_ASSERT(!ended_);
    fields_.OnField(name, value);
  }
  void OnFieldsEnd() override {
    if (fields_.OnFieldsEnd() != GrpcFault::kNone || fields_.http_refusal()) Reset();
  }
  void OnData(std::string_view bytes) override {
    DPA_ASSERT(!ended_);
    while (!bytes.empty()) {
      if (reader_.Take(bytes) != GrpcFault::kNone) return Reset();
      if (reader_.complete()) DPA_ASSERT(reader_.TakeMessage().size() <= kMessageBytesMax);
    }
  }
  void OnRequestSent() override {}
  void OnEnd(Result<void>) override {
    DPA_ASSERT(!ended_);
    ended_ = true;
  }

  GrpcResponseFields fields_;
  GrpcMessageReader reader_;
  bool ended_ = true;
};

struct Owner : H2Session::Owner {
  void OnOutputWanted() override {}
};

void Drain(H2Session& session, BytePool& pool) {
  ByteBuffer output(pool);
  static_cast<void>(session.Drain(output, 4096));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  BytePool pool;
  H2Memory memory;
  Owner owner;
  {
    FuzzStream streams[] = {FuzzStream(pool), FuzzStream(pool), FuzzStream(pool), FuzzStream(pool)};
    H2Session session(memory, H2Options{.streams_max = 3, .waiting_max = 1, .field_bytes_max = 2000, .fields_max = 20},
                      owner);
    Drain(session, pool);
    while (!input.empty()) {
      const uint8_t control = static_cast<uint8_t>(input.front());
      input.remove_prefix(1);
      FuzzStream& stream = streams[control % std::size(streams)];
      if (control < 200) {
        const std::string_view bytes = input.substr(0, control);
        input.remove_prefix(bytes.size());
        if (!session.Feed(bytes)) break;
      } else if (control < 220) {
        Drain(session, pool);
      } else if (control < 240) {
        if (stream.session() != nullptr) stream.Reset();
      } else if (control < 255) {
        if (stream.session() == nullptr && session.Open(stream, {kFields, kBody}, false, 0)) stream.Begin();
      } else {
        session.CloseWhenIdle();
      }
    }
    session.Fail(Error{ErrorCode::kReset, ErrorSource::kPlugin});
    for (const FuzzStream& stream : streams) DPA_ASSERT(stream.ended());
  }
  DPA_ASSERT(memory.blocks_out() == 0 && pool.blocks_out() == 0);
  return 0;
}
