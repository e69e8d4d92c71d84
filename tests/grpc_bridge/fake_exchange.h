// FakeExchange is an Exchange without a connection: the request is given, the answer is kept, and the client leaves
// when told to.

#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/exchange.h"

namespace dpa {

class FakeExchange final : public Exchange {
 public:
  FakeExchange(Worker& worker, const RouteTarget& target, std::string method, std::string body)
      : worker_(worker), method_(std::move(method)), body_(std::move(body)) {
    match_.target = &target;
    head_.method = method_;
    head_.path = "/";
    head_.content_length = body_.size();
  }
  ~FakeExchange() { EXPECT_EQ(gone_target_, nullptr); }

  void AddCapture(std::string_view name, std::string_view value) {
    match_.captures[match_.captures_count++] = {name, texts_.emplace_back(value)};
  }
  void AddField(std::string_view name, std::string_view value) {
    fields_.push_back({name, value});
    head_.fields = fields_;
  }
  void LeaveAsClient() {
    gone_ = true;
    if (gone_target_ != nullptr) gone_target_->Cancel(Error{ErrorCode::kClosed, ErrorSource::kDownstream});
  }
  // What reading the body ends with.
  std::optional<Error> body_error;

  RequestIds request_ids;

  int status = 0;      // 0: no answer.
  std::string answer;  // Body of a Respond, message of a RespondError.
  std::string allow;
  std::optional<Reason> reason;  // Of a RespondError.
  bool waits_for_client() const { return gone_target_ != nullptr; }

  Worker& worker() override { return worker_; }
  const RequestHead& request() const override { return head_; }
  RouteMatch& match() override { return match_; }
  AccessRecord& record() override { return record_; }
  const RequestIds& ids() const override { return request_ids; }

  Task<Result<std::string_view>> ReadBody() override { co_return std::string_view(body_); }
  Task<Result<void>> ReadWholeBody(ByteBuffer& into, size_t bytes_max, size_t padding_bytes) override {
    if (body_error) co_return std::unexpected(*body_error);
    if (body_.size() > bytes_max) co_return std::unexpected(Error{ErrorCode::kTooLarge, ErrorSource::kDownstream});
    into.Append(body_);
    std::memset(into.Tail(padding_bytes), 0, padding_bytes);
    co_return Result<void>();
  }

  Task<Result<void>> Respond(const Response& response, std::span<iovec> pieces) override {
    EXPECT_EQ(status, 0) << "answered twice";
    status = response.status;
    for (const iovec& piece : pieces) answer.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
    co_return Result<void>();
  }
  Task<Result<void>> RespondError(Reason why, std::string_view message) override {
    return RespondError(why, message, {});
  }
  Task<Result<void>> RespondError(Reason why, std::string_view message, std::span<const HeaderField> fields) override {
    EXPECT_EQ(status, 0) << "answered twice";
    reason = why;
    status = Info(why).http_status;
    answer = message;
    record_.reason = why;
    if (const HeaderField* field = FindField(fields, "allow")) allow = field->value;
    co_return Result<void>();
  }
  Task<Result<void>> StartResponse(const Response&) override { co_return Result<void>(); }
  Task<Result<void>> WriteBody(std::span<iovec>) override { co_return Result<void>(); }
  Task<Result<void>> FinishResponse() override { co_return Result<void>(); }
  bool response_started() const override { return status != 0; }

  void CancelWhenClientGone(Cancellable* target) override {
    gone_target_ = target;
    if (gone_ && target != nullptr) target->Cancel(Error{ErrorCode::kClosed, ErrorSource::kDownstream});
  }

 private:
  Worker& worker_;
  std::string method_;
  std::string body_;
  RequestHead head_;
  RouteMatch match_;
  AccessRecord record_;
  std::vector<HeaderField> fields_;
  std::deque<std::string> texts_;  // What captures refer to.
  Cancellable* gone_target_ = nullptr;
  bool gone_ = false;
};

}  // namespace dpa
