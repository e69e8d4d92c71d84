// Goal: a PROXY header means the same however the network cuts it, what is no header is refused as soon as that is
// certain, and HTTP begins exactly behind it. Method: a table of raw bytes and meanings; each row is asked about after
// every byte, as a receiver of any pieces would.

#include "http/proxy_protocol.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace dpa {
namespace {

using namespace std::string_literals;

const std::string kSignature("\r\n\r\n\0\r\nQUIT\n", 12);

std::string Big16(size_t number) { return {static_cast<char>(number >> 8 & 0xFF), static_cast<char>(number & 0xFF)}; }

std::string Version2(char version_and_command, char family, const std::string& behind) {
  return kSignature + version_and_command + family + Big16(behind.size()) + behind;
}

std::string Tlv(char type, const std::string& value) { return type + Big16(value.size()) + value; }

const std::string kFour = "\xC0\x00\x02\x01\xC6\x33\x64\x01\xDC\x04\x01\xBB"s;  // 192.0.2.1:56324 to 198.51.100.1:443
const std::string kSix =
    "\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x01"s + "\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x02"s + "\x12\x34\x00\x50"s;
const std::string kMapped = "\0\0\0\0\0\0\0\0\0\0\xFF\xFF\xC0\x00\x02\x01"s + std::string(16, '\0') + "\0\1\0\2"s;

// A header with a CRC32C TLV among others, as HAProxy makes it: over everything, with its own bytes as zero.
std::string WithChecksum(uint32_t flip) {
  const std::string behind = kFour + Tlv(0x04, "pad") + Tlv(0x03, "\0\0\0\0"s) + Tlv(0x02, "grafana.example");
  std::string header = Version2(0x21, 0x11, behind);
  const uint32_t crc = Crc32c(0, header) ^ flip;
  const size_t at = 16 + kFour.size() + 6 + 3;
  for (int i = 0; i < 4; ++i) header[at + static_cast<size_t>(i)] = static_cast<char>(crc >> (24 - 8 * i));
  return header;
}

struct Row {
  std::string name;
  std::string bytes;
  std::string meaning;  // "ADDRESS:PORT", "own" (the connection's own peer), or the violation.
};

std::vector<Row> LineRows() {
  return {
      {"v1_tcp4", "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "192.0.2.1:56324"},
      {"v1_tcp6", "PROXY TCP6 2001:db8::1 2001:db8::2 4660 80\r\n", "2001:db8::1:4660"},
      {"v1_tcp6_mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n", "192.0.2.1:1"},
      {"v1_ports_at_the_ends", "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0:0"},
      {"v1_unknown", "PROXY UNKNOWN\r\n", "own"},
      {"v1_unknown_with_more", "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535 \1\2\3\r\n", "own"},
      {"v1_longest", "PROXY UNKNOWN " + std::string(91, 'x') + "\r\n", "own"},
      {"v1_too_long", "PROXY UNKNOWN " + std::string(92, 'x') + "\r\n", "line_malformed"},
      {"v1_endless", "PROXY TCP4 " + std::string(200, '1'), "line_malformed"},
      {"v1_no_family", "PROXY \r\n", "line_malformed"},
      {"v1_other_family", "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n", "line_malformed"},
      {"v1_lower_case", "PROXY tcp4 192.0.2.1 198.51.100.1 1 2\r\n", "line_malformed"},
      {"v1_unknown_glued", "PROXY UNKNOWNX\r\n", "line_malformed"},
      {"v1_two_spaces", "PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n", "line_malformed"},
      {"v1_trailing_space", "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n", "line_malformed"},
      {"v1_tab", "PROXY TCP4\t192.0.2.1 198.51.100.1 1 2\r\n", "line_malformed"},
      {"v1_too_few", "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n", "line_malformed"},
      {"v1_too_many", "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n", "line_malformed"},
      {"v1_bare_lf", "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\nGET / HTTP/1.1\r\n\r\n", "line_malformed"},
      {"v1_bare_cr", "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\rGET", "line_malformed"},
      {"v1_six_as_four", "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", "address_invalid"},
      {"v1_four_as_six", "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", "address_invalid"},
      {"v1_leading_zero", "PROXY TCP4 192.0.02.1 198.51.100.1 1 2\r\n", "address_invalid"},
      {"v1_host_name", "PROXY TCP4 localhost 198.51.100.1 1 2\r\n", "address_invalid"},
      {"v1_port_too_large", "PROXY TCP4 192.0.2.1 198.51.100.1 65536 2\r\n", "address_invalid"},
      {"v1_port_negative", "PROXY TCP4 192.0.2.1 198.51.100.1 -1 2\r\n", "address_invalid"},
      {"v1_port_leading_zero", "PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n", "address_invalid"},
      {"v1_no_port", "PROXY TCP4 192.0.2.1 198.51.100.1  2\r\n", "address_invalid"},
      {"http", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "not_a_header"},
      {"post", "POST / HTTP/1.1\r\nHost: h\r\n\r\n", "not_a_header"},
      {"propfind", "PROPFIND / HTTP/1.1\r\n\r\n", "not_a_header"},
      {"lower_case", "proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n", "not_a_header"},
      {"tls", "\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03"s, "not_a_header"},
      {"empty_lines", "\r\n\r\nGET / HTTP/1.1\r\n\r\n", "not_a_header"},
      {"zero", "\0"s, "not_a_header"},
  };
}

std::vector<Row> BinaryRows() {
  return {
      {"v2_tcp4", Version2(0x21, 0x11, kFour), "192.0.2.1:56324"},
      {"v2_udp4", Version2(0x21, 0x12, kFour), "192.0.2.1:56324"},
      {"v2_tcp6", Version2(0x21, 0x21, kSix), "2001:db8::1:4660"},
      {"v2_udp6", Version2(0x21, 0x22, kSix), "2001:db8::1:4660"},
      {"v2_mapped", Version2(0x21, 0x21, kMapped), "192.0.2.1:1"},
      {"v2_unix", Version2(0x21, 0x31, std::string(216, '/')), ":0"},
      {"v2_local", Version2(0x20, 0x00, ""), "own"},
      {"v2_local_with_addresses", Version2(0x20, 0x11, kFour), "own"},
      {"v2_local_of_any_family", Version2(0x20, 0x77, "whatever"), "own"},
      {"v2_unspec", Version2(0x21, 0x00, ""), "own"},
      {"v2_unspec_with_bytes", Version2(0x21, 0x00, kFour), "own"},
      {"v2_tlvs", Version2(0x21, 0x11, kFour + Tlv(0x04, "") + Tlv(0x20, std::string(300, 's')) + Tlv(0x7F, "x")),
       "192.0.2.1:56324"},
      {"v2_checksum", WithChecksum(0), "192.0.2.1:56324"},
      {"v2_largest", Version2(0x21, 0x11, kFour + Tlv(0x04, std::string(4096 - 16 - 12 - 3, 'n'))), "192.0.2.1:56324"},
      {"v2_bad_checksum", WithChecksum(1), "checksum_invalid"},
      {"v2_short_checksum", Version2(0x21, 0x11, kFour + Tlv(0x03, "abc")), "tlv_malformed"},
      {"v2_long_checksum", Version2(0x21, 0x11, kFour + Tlv(0x03, "abcde")), "tlv_malformed"},
      {"v2_tlv_beyond_the_end", Version2(0x21, 0x11, kFour + "\x04\x00\x05"s + "abcd"), "tlv_malformed"},
      {"v2_tlv_cut_off", Version2(0x21, 0x11, kFour + "\x04\x00"s), "tlv_malformed"},
      {"v2_tlv_type_alone", Version2(0x21, 0x11, kFour + "\x04"s), "tlv_malformed"},
      {"v2_version_1", Version2(0x11, 0x11, kFour), "version_unknown"},
      {"v2_version_3", Version2(0x31, 0x11, kFour), "version_unknown"},
      {"v2_command_2", Version2(0x22, 0x11, kFour), "version_unknown"},
      {"v2_family_4", Version2(0x21, 0x41, kFour), "family_unknown"},
      {"v2_no_transport", Version2(0x21, 0x10, kFour), "family_unknown"},
      {"v2_transport_3", Version2(0x21, 0x13, kFour), "family_unknown"},
      {"v2_four_too_short", Version2(0x21, 0x11, kFour.substr(0, 11)), "length_invalid"},
      {"v2_six_too_short", Version2(0x21, 0x21, kSix.substr(0, 35)), "length_invalid"},
      {"v2_unix_too_short", Version2(0x21, 0x31, std::string(215, '/')), "length_invalid"},
      {"v2_too_large", Version2(0x21, 0x11, kFour + Tlv(0x04, std::string(4096 - 16 - 12 - 2, 'n'))), "length_invalid"},
      {"v2_longest_length", kSignature + "\x21\x11\xFF\xFF"s, "length_invalid"},
      {"v2_local_too_large", kSignature + "\x20\x00\xFF\xFF"s, "length_invalid"},
      {"v2_broken_signature", "\r\n\r\n\0\r\nQUIX\n\x21\x11"s, "not_a_header"},
  };
}

std::vector<Row> Rows() {
  std::vector<Row> rows = LineRows();
  const std::vector<Row> binary = BinaryRows();
  rows.insert(rows.end(), binary.begin(), binary.end());
  return rows;
}

std::string MeaningOf(const ProxyHeader& header) {
  if (header.state == ProxyHeader::State::kNeedMore) return "need_more";
  if (header.state == ProxyHeader::State::kInvalid) return std::string(ToString(header.violation));
  if (!header.has_source) return "own";
  return header.source.ToString() + ":" + std::to_string(header.source_port);
}

bool IsValid(const Row& row) { return row.meaning == "own" || row.meaning.find(':') != std::string::npos; }

// Each call sees exactly the bytes so far, so that a sanitizer sees a read beyond them.
ProxyHeader Feed(const std::string& bytes, size_t count) {
  const std::vector<char> exact(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
  return ParseProxyHeader({exact.data(), exact.size()});
}

TEST(ProxyProtocol, MeansTheSameInEveryCut) {
  for (const Row& row : Rows()) {
    for (const std::string& behind : {""s, "GET / HTTP/1.1\r\n\r\n"s, "PROXY TCP4"s, "\0\r"s}) {
      const std::string bytes = row.bytes + behind;
      std::string verdict = "need_more";
      for (size_t count = 0; count <= bytes.size(); ++count) {
        const ProxyHeader header = Feed(bytes, count);
        const std::string meaning = MeaningOf(header);
        // A verdict stands, whatever follows; and until it is whole a valid header has none.
        if (verdict != "need_more") ASSERT_EQ(meaning, verdict) << row.name << " after " << count;
        verdict = meaning;
        if (!IsValid(row)) continue;
        ASSERT_EQ(meaning, count < row.bytes.size() ? "need_more" : row.meaning) << row.name << " after " << count;
        if (count >= row.bytes.size()) ASSERT_EQ(header.size, row.bytes.size()) << row.name;
      }
      ASSERT_EQ(verdict, row.meaning) << row.name;
    }
  }
}

TEST(ProxyProtocol, RefusesWhatIsNoHeaderByItsFirstByte) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string first(1, static_cast<char>(byte));
    const bool possible = first == "P" || first == "\r";
    EXPECT_EQ(MeaningOf(Feed(first, 1)), possible ? "need_more" : "not_a_header") << byte;
  }
}

TEST(ProxyProtocol, ChecksAsCastagnoliDid) {
  EXPECT_EQ(Crc32c(0, "123456789"), 0xE3069283u);  // The check value of the polynomial.
  EXPECT_EQ(Crc32c(0, ""), 0u);
  EXPECT_EQ(Crc32c(Crc32c(0, "1234"), "56789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(0, std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720 appendix B.4.
}

// The corpus of the fuzz target is this table. With DPA_WRITE_CORPUS set in the environment it is written.
TEST(ProxyProtocol, CorpusHoldsTheTable) {
  const std::filesystem::path folder = std::filesystem::path(DPA_SOURCE_DIR) / "tests/fuzz/corpus/proxy_header_fuzz";
  for (const Row& row : Rows()) {
    if (std::getenv("DPA_WRITE_CORPUS")) {
      std::filesystem::create_directories(folder);
      std::ofstream(folder / row.name, std::ios::binary) << row.bytes;
    }
    std::stringstream found;
    found << std::ifstream(folder / row.name, std::ios::binary).rdbuf();
    EXPECT_EQ(found.str(), row.bytes) << row.name << " is not the row; set DPA_WRITE_CORPUS=1 to write it";
  }
}

}  // namespace
}  // namespace dpa
