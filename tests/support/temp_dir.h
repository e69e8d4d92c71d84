// A directory that is gone when the test ends.

#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace dpa {

class TempDir {
 public:
  TempDir() {
    std::string path = std::filesystem::temp_directory_path() / "dpa-test-XXXXXX";
    path_ = mkdtemp(path.data());
  }
  TempDir(const TempDir&) = delete;
  ~TempDir() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  const std::string& path() const { return path_; }

  // Writes the file and the directories above it; returns its path.
  std::string Write(const std::string& name, std::string_view text) const {
    const std::filesystem::path file = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
    return file;
  }

 private:
  std::string path_;
};

}  // namespace dpa
