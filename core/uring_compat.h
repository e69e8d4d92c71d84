// Constants of the io_uring interface that liburing 2.3's header does not have yet. They are kernel ABI and never
// change
// (linux/io_uring.h).

#pragma once

#include <liburing.h>

#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7)
#endif
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif
