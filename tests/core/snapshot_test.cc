// Goal: a pin keeps the version that it was taken on, whole and alive, and nothing else; the last pin frees it.
// Method: counted data; then one publishing thread against several reading ones, under ThreadSanitizer as well.

#include "core/snapshot.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace dpa {
namespace {

struct Data {
  explicit Data(int v) : value(v), twice(2 * v) { ++alive; }
  ~Data() { --alive; }
  const int value;
  const int twice;
  static inline std::atomic<int> alive{0};
};

TEST(SnapshotTest, APinKeepsItsVersionAndTheLastOneFreesIt) {
  SnapshotPublisher<Data> publisher(std::make_shared<Data>(1));
  SnapshotReader<Data> reader(publisher);
  auto old = reader.PinCurrent();
  auto old_too = reader.PinCurrent();
  publisher.Publish(std::make_shared<Data>(2));
  EXPECT_EQ(reader.current().value, 1) << "adopted only when asked";
  EXPECT_TRUE(reader.Adopt());
  EXPECT_FALSE(reader.Adopt());
  EXPECT_EQ(reader.current().value, 2);
  EXPECT_EQ(old->value, 1);
  EXPECT_EQ(Data::alive, 2);
  old = std::move(old_too);
  EXPECT_FALSE(old_too);
  EXPECT_EQ(Data::alive, 2);
  old = reader.PinCurrent();
  EXPECT_EQ(Data::alive, 1) << "the first version has no pin left";
  EXPECT_EQ(old->value, 2);
}

TEST(SnapshotTest, APinMayOutliveItsReader) {
  SnapshotPublisher<Data> publisher(std::make_shared<Data>(7));
  SnapshotReader<Data>::Pin pin;
  EXPECT_FALSE(pin);
  {
    SnapshotReader<Data> reader(publisher);
    pin = reader.PinCurrent();
    publisher.Publish(std::make_shared<Data>(8));
    reader.Adopt();
  }
  EXPECT_EQ(pin->value, 7);
}

TEST(SnapshotTest, ReadersOnOtherThreadsSeeWholeVersionsThatNeverGoBack) {
  constexpr int kVersions = 2000;
  SnapshotPublisher<Data> publisher(std::make_shared<Data>(0));
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&publisher] {
      SnapshotReader<Data> reader(publisher);
      int last = 0;
      std::vector<SnapshotReader<Data>::Pin> pins;
      while (last < kVersions) {
        reader.Adopt();
        EXPECT_GE(reader.current().value, last);
        EXPECT_EQ(reader.current().twice, 2 * reader.current().value);
        last = reader.current().value;
        pins.push_back(reader.PinCurrent());
        if (pins.size() > 5) pins.erase(pins.begin());
      }
    });
  }
  for (int version = 1; version <= kVersions; ++version) publisher.Publish(std::make_shared<Data>(version));
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(Data::alive, 1);
}

}  // namespace
}  // namespace dpa
