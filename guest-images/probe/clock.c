/* Clocks, and the kernel's receive stamps brought on to the monotonic one. */
#include "probe.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

int64_t realtime_minus_monotonic(void)
{
    int64_t best = INT64_MAX, offset = 0;
    for (int i = 0; i < 3; i++) {
        int64_t before = monotonic_ns(), real = clock_ns(CLOCK_REALTIME), after = monotonic_ns();
        if (after - before < best) {
            best = after - before;
            offset = real - (before + best / 2);
        }
    }
    return offset;
}

void sleep_until(int64_t at_ns)
{
    struct timespec at = {.tv_sec = at_ns / NS_PER_S, .tv_nsec = at_ns % NS_PER_S};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}

int64_t received_at(struct msghdr *message, int64_t offset)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
            return stamp.tv_sec * NS_PER_S + stamp.tv_nsec - offset;
        }
    }
    return monotonic_ns();
}
