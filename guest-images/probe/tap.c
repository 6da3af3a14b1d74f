/* A port on a bridge as a guest has one: a tap, whose frames are standard input and output. Each
 * frame has its length before it, two bytes, the higher one first. The tap goes with the program. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FRAME = 65535, LENGTH = 2 };

/* The host says nothing of its own on a guest's port. Where the kernel has no IPv6, it can't. */
static void without_ipv6(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "1", 1) != 1)
        perror("probe: IPv6 of the tap");
    close(fd);
}

/* A bridge takes its lowest port's MAC for its own, so this one's is high, as libvirt's taps' are. */
static bool join(const char *name, const char *bridge)
{
    static const unsigned char high[] = {0xfe, 0x6d, 0x6c, 0xfe, 0xff, 0xff};
    struct ifreq port = {0}, flags = {0}, mac = {.ifr_hwaddr.sa_family = ARPHRD_ETHER};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(port.ifr_name, sizeof port.ifr_name, "%s", bridge);
    port.ifr_ifindex = (int)if_nametoindex(name);
    snprintf(flags.ifr_name, sizeof flags.ifr_name, "%s", name);
    flags.ifr_flags = IFF_UP;
    snprintf(mac.ifr_name, sizeof mac.ifr_name, "%s", name);
    memcpy(mac.ifr_hwaddr.sa_data, high, sizeof high);
    bool done = fd >= 0 && ioctl(fd, SIOCSIFHWADDR, &mac) == 0 &&
                ioctl(fd, SIOCBRADDIF, &port) == 0 && ioctl(fd, SIOCSIFFLAGS, &flags) == 0;
    int why = errno;
    close(fd);
    errno = why;
    return done;
}

/* A tap with a name that the kernel gives, so that nobody's is taken. */
static int new_port(const char *bridge)
{
    struct ifreq tap = {.ifr_name = "mlport%d", .ifr_flags = IFF_TAP | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &tap) != 0)
        return -1;
    without_ipv6(tap.ifr_name);
    return join(tap.ifr_name, bridge) ? fd : -1;
}

static bool write_whole(int fd, const unsigned char *bytes, size_t length)
{
    for (ssize_t done; length > 0; bytes += done, length -= (size_t)done)
        if ((done = write(fd, bytes, length)) <= 0)
            return false;
    return true;
}

/* Whole frames of what was read go to the tap; what is left of the last one stays. */
static bool take_frames(int tap)
{
    static unsigned char bytes[4 * (MAX_FRAME + LENGTH)];
    static size_t have;
    ssize_t more = read(STDIN_FILENO, bytes + have, sizeof bytes - have);
    if (more <= 0)
        return more < 0 && errno == EINTR;
    have += (size_t)more;
    size_t at = 0;
    while (have - at >= LENGTH) {
        size_t length = (size_t)bytes[at] << 8 | bytes[at + 1];
        if (have - at < LENGTH + length)
            break;
        /* A frame that the kernel refuses, a short one say, is lost as on any wire. */
        if (write(tap, bytes + at + LENGTH, length) < 0 && errno == EBADFD)
            return false;
        at += LENGTH + length;
    }
    memmove(bytes, bytes + at, have - at);
    have -= at;
    return true;
}

static bool hand_on(int tap)
{
    static unsigned char bytes[LENGTH + MAX_FRAME];
    ssize_t length = read(tap, bytes + LENGTH, MAX_FRAME);
    if (length <= 0)
        return length < 0 && errno == EINTR;
    bytes[0] = (unsigned char)(length >> 8);
    bytes[1] = (unsigned char)length;
    return write_whole(STDOUT_FILENO, bytes, LENGTH + (size_t)length);
}

int bridge_port(const char *bridge)
{
    int tap = new_port(bridge);
    if (tap < 0) {
        fprintf(stderr, "probe: make a port on %s: %s\n", bridge, strerror(errno));
        return 1;
    }
    struct pollfd sides[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = tap, .events = POLLIN}};
    bool open = write_whole(STDOUT_FILENO, (const unsigned char *)"\0\0", LENGTH); /* it is there */
    while (open) {
        if (poll(sides, 2, -1) < 0)
            continue; /* a signal */
        if (sides[1].revents)
            open = hand_on(tap);
        if (open && sides[0].revents)
            open = take_frames(tap);
    }
    close(tap);
    return 0;
}
