/* A stream to ourselves, through a network that sends back what it gets: one without a peer.
 *
 * The packets are the streams' in frames of an EtherType of their own, to our own MAC, so nothing of
 * IP takes part; the stream's thread, its logs and its commands are the same.
 */
#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ETHERTYPE 0x88b5 /* IEEE 802, local experimental 1 */

/* Where the interface's frames to itself go; -1 with the reason in errno. What we send is never
 * taken for what came back. */
static int open_socket(const char *name, struct sockaddr_ll *own)
{
    int on = 1, fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ask = {0};
    snprintf(ask.ifr_name, sizeof ask.ifr_name, "%s", name);
    *own = (struct sockaddr_ll){.sll_family = AF_PACKET,
                                .sll_protocol = htons(ETHERTYPE),
                                .sll_ifindex = (int)if_nametoindex(name),
                                .sll_halen = 6};
    if (fd < 0)
        return -1;
    if (ioctl(fd, SIOCGIFHWADDR, &ask) == 0 && stream_equip(fd) &&
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) == 0 &&
        bind(fd, (struct sockaddr *)own, sizeof *own) == 0) {
        memcpy(own->sll_addr, ask.ifr_hwaddr.sa_data, own->sll_halen);
        return fd;
    }
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

void loop_start(const struct request *request, struct reply *reply)
{
    char name[IF_NAMESIZE];
    struct pace pace;
    struct sockaddr_ll own;
    if (!stream_take_pace(request, reply, &pace) || !net_choose(request, reply, name) ||
        !stream_prepare(request, reply))
        return;
    int fd = open_socket(name, &own);
    if (fd < 0)
        return fail(reply, "loop on %s: %s", name, strerror(errno));
    if (!stream_receive(fd, reply))
        return;
    stream_begin(&own, sizeof own, pace);
    put_text(reply, "name", name);
}
