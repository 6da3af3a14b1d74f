/* Announcements on the wire: RARP, ARP and IPv6 neighbour advertisements that come in; and the first
 * frame of TCP after a silence, which tells switches as much. */
#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MAX_FRAMES = 1000,
    HEADER = 14,
    PROTOCOL_IP = HEADER + 9,
    NEXT_HEADER = HEADER + 6,
    ICMP6_TYPE = HEADER + 40,
    SILENCE_NS = 30 * NS_PER_MS, /* connections send each 10 ms */
};

struct frame {
    int64_t at_ns;
    const char *kind;
    unsigned char mac[6]; /* who sent it */
    unsigned length;
};

static struct {
    pthread_t thread;
    bool open;
    int socket, wake;
    pthread_mutex_t lock;
    int64_t tcp_at_ns;
    size_t total;
    struct frame frames[MAX_FRAMES];
} c = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* In the kernel, so that ordinary traffic never wakes the thread. */
static bool attach_filter(int fd)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_ARP, 9, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_REVARP, 8, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_IPV6, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_IP, 0, 7),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, PROTOCOL_IP),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 4, 5),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NEXT_HEADER),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ICMPV6, 0, 3),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, ICMP6_TYPE),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 136, 0, 1), /* neighbour advertisement */
        BPF_STMT(BPF_RET | BPF_K, 128),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

/* Gratuitous: the sender asks for, or tells, its own address. */
static const char *kind_of(const unsigned char *frame, size_t length)
{
    unsigned type = (unsigned)frame[12] << 8 | frame[13];
    if (type == ETHERTYPE_REVARP)
        return "rarp";
    if (type == ETHERTYPE_IPV6)
        return "na";
    if (type == ETHERTYPE_IP)
        return "tcp";
    bool whole = length >= HEADER + 28;
    return whole && memcmp(frame + HEADER + 14, frame + HEADER + 24, 4) == 0 ? "garp" : "arp";
}

static void take_frame(void)
{
    unsigned char bytes[128];
    char control[128];
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t length = recvmsg(c.socket, &message, MSG_DONTWAIT | MSG_TRUNC);
    if (length < HEADER)
        return;
    size_t kept = (size_t)length < sizeof bytes ? (size_t)length : sizeof bytes;
    struct frame frame = {.at_ns = received_at(&message, realtime_minus_monotonic()),
                          .kind = kind_of(bytes, kept),
                          .length = (unsigned)length};
    memcpy(frame.mac, bytes + 6, sizeof frame.mac);
    if (strcmp(frame.kind, "tcp") == 0) {
        int64_t silent_ns = frame.at_ns - c.tcp_at_ns;
        c.tcp_at_ns = frame.at_ns;
        if (silent_ns < SILENCE_NS)
            return;
    }
    pthread_mutex_lock(&c.lock);
    c.frames[c.total++ % MAX_FRAMES] = frame;
    pthread_mutex_unlock(&c.lock);
}

static void *capture_thread(void *unused)
{
    struct pollfd fds[] = {{.fd = c.wake, .events = POLLIN}, {.fd = c.socket, .events = POLLIN}};
    for (;;) {
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[0].revents)
            return unused;
        if (fds[1].revents)
            take_frame();
    }
}

static void close_capture(void)
{
    uint64_t one = 1;
    if (!c.open || write(c.wake, &one, sizeof one) < 0)
        return;
    pthread_join(c.thread, NULL);
    close(c.socket);
    close(c.wake);
    c.open = false;
}

/* Protocol 0 until the filter is in place: nothing unfiltered is ever queued. */
static int open_socket(unsigned interface)
{
    int on = 1, fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)interface};
    if (fd < 0)
        return -1;
    if (attach_filter(fd) &&
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) == 0 &&
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) == 0 &&
        bind(fd, (struct sockaddr *)&at, sizeof at) == 0)
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

void capture_start(const struct request *request, struct reply *reply)
{
    const char *name = text_or(request, "name", "");
    unsigned interface = if_nametoindex(name);
    if (!interface)
        return fail(reply, "no interface %s", name);
    close_capture();
    c.total = 0;
    c.tcp_at_ns = 0;
    c.socket = open_socket(interface);
    if (c.socket < 0)
        return fail(reply, "capture on %s: %s", name, strerror(errno));
    c.wake = eventfd(0, EFD_CLOEXEC);
    int why = c.wake < 0 ? errno : pthread_create(&c.thread, NULL, capture_thread, NULL);
    c.open = !why;
    if (why) {
        close(c.socket);
        if (c.wake >= 0)
            close(c.wake);
        fail(reply, "capture thread: %s", strerror(why));
    }
}

void capture_log(const struct request *request, struct reply *reply)
{
    (void)request;
    pthread_mutex_lock(&c.lock);
    size_t begin = c.total > MAX_FRAMES ? c.total - MAX_FRAMES : 0;
    put_integer(reply, "total", (int64_t)c.total);
    put_raw(reply, ",\"frames\":[");
    for (size_t i = begin; i < c.total; i++) {
        const struct frame *f = &c.frames[i % MAX_FRAMES];
        put_raw(reply, "%s{\"at_ns\":%lld,\"kind\":\"%s\"", i > begin ? "," : "",
                (long long)f->at_ns, f->kind);
        put_raw(reply, ",\"mac\":\"%02x:%02x:%02x:%02x:%02x:%02x\",\"length\":%u}", f->mac[0],
                f->mac[1], f->mac[2], f->mac[3], f->mac[4], f->mac[5], f->length);
    }
    put_raw(reply, "]");
    pthread_mutex_unlock(&c.lock);
}

void capture_stop(const struct request *request, struct reply *reply)
{
    (void)request;
    (void)reply;
    close_capture();
}
