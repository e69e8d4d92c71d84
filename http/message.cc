#include "http/message.h"

#include <array>

#include "core/assert.h"
#include "http/bytes.h"

namespace dpa {

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && ToLower(a[i]) != ToLower(b[i])) return false;
  }
  return true;
}

const HeaderField* FindField(std::span<const HeaderField> fields, std::string_view name) {
  for (const HeaderField& field : fields) {
    if (EqualsIgnoreCase(field.name, name)) return &field;
  }
  return nullptr;
}

bool NextListElement(std::string_view& list, std::string_view& element) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    element = TrimBlanks(list.substr(0, comma));
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
    if (!element.empty()) return true;
  }
  return false;
}

bool IsToken(std::string_view value) {
  for (const char c : value) {
    if (!IsTokenByte(c)) return false;
  }
  return !value.empty();
}

std::string_view ToString(BodyFraming framing) {
  switch (framing) {
    case BodyFraming::kNone:
      return "none";
    case BodyFraming::kContentLength:
      return "content_length";
    case BodyFraming::kChunked:
      return "chunked";
    case BodyFraming::kUntilClose:
      return "until_close";
  }
  return "unknown";
}

namespace {

struct ViolationRow {
  int status;
  std::string_view reason;
};

// In the order of the enumeration.
constexpr std::array<ViolationRow, static_cast<size_t>(HttpViolation::kCount)> kViolations = {{
    {0, "none"},
    {400, "bare_cr"},
    {400, "bare_lf"},
    {400, "control_byte"},
    {400, "obs_fold"},
    {431, "head_too_large"},
    {431, "fields_too_many"},
    {400, "head_malformed"},
    {400, "start_line_malformed"},
    {400, "method_invalid"},
    {501, "method_unknown"},
    {405, "method_trace"},
    {501, "method_connect"},
    {400, "target_invalid"},
    {414, "target_too_long"},
    {505, "version_unsupported"},
    {502, "status_invalid"},
    {400, "field_name_invalid"},
    {400, "content_length_invalid"},
    {400, "content_length_repeated"},
    {400, "length_with_encoding"},
    {400, "transfer_encoding_invalid"},
    {501, "transfer_coding_unknown"},
    {400, "transfer_encoding_version"},
    {400, "host_missing"},
    {400, "host_repeated"},
    {400, "host_invalid"},
    {417, "expectation_unknown"},
    {400, "chunk_size_invalid"},
    {400, "chunk_size_too_large"},
    {400, "chunk_extension_invalid"},
    {400, "chunk_unterminated"},
    {400, "trailer_invalid"},
    {431, "trailers_too_large"},
}};
static_assert(!kViolations.back().reason.empty(), "a row is missing");

const ViolationRow& RowOf(HttpViolation violation) {
  DPA_ASSERT(violation < HttpViolation::kCount);
  return kViolations[static_cast<size_t>(violation)];
}

}  // namespace

int StatusOf(HttpViolation violation) {
  DPA_ASSERT(violation != HttpViolation::kNone);
  return RowOf(violation).status;
}

std::string_view ReasonOf(HttpViolation violation) { return RowOf(violation).reason; }

Error ErrorOf(HttpViolation violation, ErrorSource source) {
  const int status = StatusOf(violation);
  ErrorCode code = ErrorCode::kMalformed;
  if (status == 431 || status == 414) code = ErrorCode::kTooLarge;
  if (status == 501 || status == 505 || status == 405 || status == 417) code = ErrorCode::kUnsupported;
  return Error{code, source, false, 0};
}

}  // namespace dpa
