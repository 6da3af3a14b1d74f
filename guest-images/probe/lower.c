/* Which device carries the traffic, and how much: one of the interface's lower devices (of a
 * failover pair, say), or, where it has none, the interface itself.
 *
 * The kernel tells each change of a link by rtnetlink. It tells a lost carrier up to a second late,
 * and never what was sent, so both are looked at in sysfs, which is cheap: the guest is measured.
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_LINKS = 64, MAX_CHANGES = 1000, LOOK_MS = 20, RECEIVE_BUFFER = 1 << 20 };
#ifndef IFF_LOWER_UP /* <net/if.h> ends before it */
#define IFF_LOWER_UP 0x10000u
#endif

struct device {
    char name[IF_NAMESIZE], driver[MAX_DRIVER];
};

struct link {
    int index, master; /* 0: none */
    char name[IF_NAMESIZE];
    bool running, listed;

    bool counts; /* what follows is of one that counts, as it was noted */
    struct device noted;
    bool noted_running;
    int carrier, packets_out, packets_in; /* files of sysfs; -1: could not be opened */
    int64_t sent, received;               /* at the last look */
};

struct change {
    int64_t at_ns;
    struct device device;
    const char *what;
    int64_t sent, received; /* packets, by the device's own counters, at the last look */
};

static struct {
    pthread_t thread;
    bool open;
    int socket, wake;

    /* The thread's own, once it runs. */
    struct link links[MOST_LINKS];
    int count, carries; /* index of the link that does; 0: none yet */
    bool listing, lost; /* all links are being listed; a message was lost, so list them (again) */

    pthread_mutex_t lock;
    size_t total;
    struct change changes[MAX_CHANGES];
} l = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void note(const struct link *link, const char *what)
{
    pthread_mutex_lock(&l.lock);
    l.changes[l.total++ % MAX_CHANGES] =
        (struct change){monotonic_ns(), link->noted, what, link->sent, link->received};
    pthread_mutex_unlock(&l.lock);
}

/* --- which links count ------------------------------------------------------------------------ */

static int open_sysfs(const char *name, const char *file)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/class/net/%s/%s", name, file);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int64_t read_number(int fd, int64_t otherwise)
{
    char text[32];
    ssize_t length = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    if (length <= 0)
        return otherwise;
    text[length] = 0;
    return strtoll(text, NULL, 10);
}

static void enter(struct link *link)
{
    link->counts = true;
    link->noted_running = false;
    strcpy(link->noted.name, link->name);
    net_driver(link->name, link->noted.driver);
    link->carrier = open_sysfs(link->name, "carrier");
    link->packets_out = open_sysfs(link->name, "statistics/tx_packets");
    link->packets_in = open_sysfs(link->name, "statistics/rx_packets");
    link->sent = read_number(link->packets_out, 0);
    link->received = read_number(link->packets_in, 0);
    note(link, "appeared");
}

static void close_files(struct link *link)
{
    if (link->carrier >= 0)
        close(link->carrier);
    if (link->packets_out >= 0)
        close(link->packets_out);
    if (link->packets_in >= 0)
        close(link->packets_in);
    link->counts = false;
}

static void leave(struct link *link)
{
    if (!link->counts)
        return;
    close_files(link);
    if (l.carries == link->index)
        l.carries = 0;
    note(link, "gone");
}

/* As `net` chooses: the lowest that has no master. The loopback is never in the table. */
static const struct link *interface(bool *has_lower)
{
    const struct link *best = NULL;
    for (const struct link *one = l.links; one < l.links + l.count; one++)
        if (!one->master && (!best || one->index < best->index))
            best = one;
    *has_lower = false;
    for (const struct link *one = l.links; best && one < l.links + l.count; one++)
        *has_lower |= one->master == best->index;
    return best;
}

static bool counts_for(const struct link *one, const struct link *top, bool has_lower)
{
    return has_lower ? one->master == top->index : one == top;
}

/* Notes how the links differ from what was noted of them; a new name is a new device. */
static void compare(void)
{
    bool has_lower;
    const struct link *top = interface(&has_lower);
    for (struct link *one = l.links; one < l.links + l.count; one++)
        if (!counts_for(one, top, has_lower) || strcmp(one->name, one->noted.name) != 0)
            leave(one);
    for (struct link *one = l.links; one < l.links + l.count; one++) {
        if (!one->counts && counts_for(one, top, has_lower))
            enter(one);
        if (one->counts && one->running != one->noted_running) {
            one->noted_running = one->running;
            note(one, one->running ? "up" : "down");
            if (!one->running && one->index == l.carries)
                l.carries = 0;
        }
    }
}

/* What each has carried so far. */
static void note_counters(void)
{
    for (const struct link *one = l.links; one < l.links + l.count; one++)
        if (one->counts)
            note(one, "counted");
}

/* What the kernel tells late or not at all. The one that sent most since the last look carries. */
static void look(void)
{
    const struct link *most = NULL;
    int64_t most_sent = 0;
    for (struct link *one = l.links; one < l.links + l.count; one++) {
        if (!one->counts)
            continue;
        one->running = read_number(one->carrier, 0) == 1; /* unreadable while it is down */
        int64_t sent = read_number(one->packets_out, one->sent), grown = sent - one->sent;
        one->sent = sent;
        one->received = read_number(one->packets_in, one->received);
        if (!one->running)
            continue;
        if (grown > most_sent || (most && grown == most_sent && one->index == l.carries)) {
            most = one;
            most_sent = grown;
        }
    }
    compare();
    if (most && most->counts && most->index != l.carries) {
        note_counters();
        l.carries = most->index;
        note(most, "carries");
    }
}

/* --- what the kernel tells -------------------------------------------------------------------- */

static void forget(struct link *link)
{
    leave(link);
    *link = l.links[--l.count];
}

static struct link *find_link(int index)
{
    for (struct link *one = l.links; one < l.links + l.count; one++)
        if (one->index == index)
            return one;
    return NULL;
}

static void take_link(struct nlmsghdr *message)
{
    const struct ifinfomsg *info = NLMSG_DATA(message);
    if (info->ifi_family != AF_UNSPEC || info->ifi_flags & IFF_LOOPBACK)
        return; /* a bridge tells of its ports as AF_BRIDGE, too */
    struct link *link = find_link(info->ifi_index);
    if (message->nlmsg_type == RTM_DELLINK) {
        if (link)
            forget(link);
        return;
    }
    if (!link && l.count == MOST_LINKS)
        return;
    if (!link) {
        link = &l.links[l.count++];
        *link = (struct link){.index = info->ifi_index};
    }
    link->listed = true;
    link->running = info->ifi_flags & IFF_LOWER_UP;
    link->master = 0;
    int left = (int)IFLA_PAYLOAD(message);
    for (struct rtattr *part = IFLA_RTA(info); RTA_OK(part, left); part = RTA_NEXT(part, left)) {
        if (part->rta_type == IFLA_IFNAME)
            snprintf(link->name, sizeof link->name, "%s", (const char *)RTA_DATA(part));
        else if (part->rta_type == IFLA_MASTER)
            memcpy(&link->master, RTA_DATA(part), sizeof link->master);
    }
}

static void ask_for_all(void)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } ask = {.header = {.nlmsg_len = sizeof ask,
                        .nlmsg_type = RTM_GETLINK,
                        .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
    for (struct link *one = l.links; one < l.links + l.count; one++)
        one->listed = false;
    l.lost = false;
    l.listing = send(l.socket, &ask, sizeof ask, 0) == sizeof ask;
}

static void end_listing(void)
{
    l.listing = false;
    for (int i = l.count - 1; i >= 0 && !l.lost; i--)
        if (!l.links[i].listed)
            forget(&l.links[i]);
}

static void take_messages(void)
{
    static char bytes[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
    ssize_t length = recv(l.socket, bytes, sizeof bytes, 0);
    if (length < 0)
        l.lost |= errno == ENOBUFS;
    size_t left = length < 0 ? 0 : (size_t)length;
    for (struct nlmsghdr *message = (struct nlmsghdr *)bytes; NLMSG_OK(message, left);
         message = NLMSG_NEXT(message, left)) {
        l.lost |= (message->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
        if (message->nlmsg_type == RTM_NEWLINK || message->nlmsg_type == RTM_DELLINK)
            take_link(message);
        else if (message->nlmsg_type == NLMSG_DONE || message->nlmsg_type == NLMSG_ERROR)
            end_listing();
        if (!l.listing)
            compare();
    }
    if (l.lost && !l.listing)
        ask_for_all();
}

static void *lower_thread(void *unused)
{
    struct pollfd fds[] = {{.fd = l.wake, .events = POLLIN}, {.fd = l.socket, .events = POLLIN}};
    int64_t due = monotonic_ns();
    for (;;) {
        int64_t now = monotonic_ns();
        if (now >= due) {
            look();
            due = now + LOOK_MS * NS_PER_MS;
        }
        int64_t left = due - now;
        struct timespec wait = {left / NS_PER_S, left % NS_PER_S};
        if (ppoll(fds, 2, &wait, NULL) < 0)
            continue;
        if (fds[0].revents)
            return unused;
        if (fds[1].revents)
            take_messages();
    }
}

/* --- commands --------------------------------------------------------------------------------- */

static void close_lower(void)
{
    uint64_t one = 1;
    if (!l.open || write(l.wake, &one, sizeof one) < 0)
        return;
    pthread_join(l.thread, NULL);
    look();
    note_counters();
    for (struct link *link = l.links; link < l.links + l.count; link++)
        if (link->counts)
            close_files(link);
    close(l.socket);
    close(l.wake);
    l.open = false;
}

static int open_socket(void)
{
    int size = RECEIVE_BUFFER;
    struct sockaddr_nl here = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) == 0)
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

/* What there is at the begin is noted before the answer, so that no log is empty. */
void lower_start(const struct request *request, struct reply *reply)
{
    (void)request;
    close_lower();
    l.count = l.carries = 0;
    l.total = 0;
    l.socket = open_socket();
    if (l.socket < 0)
        return fail(reply, "netlink: %s", strerror(errno));
    ask_for_all();
    while (l.listing)
        take_messages();
    l.wake = eventfd(0, EFD_CLOEXEC);
    int why = l.wake < 0 ? errno : pthread_create(&l.thread, NULL, lower_thread, NULL);
    l.open = !why;
    if (why) {
        close(l.socket);
        if (l.wake >= 0)
            close(l.wake);
        fail(reply, "thread of the lower devices: %s", strerror(why));
    }
}

void lower_log(const struct request *request, struct reply *reply)
{
    (void)request;
    pthread_mutex_lock(&l.lock);
    size_t begin = l.total > MAX_CHANGES ? l.total - MAX_CHANGES : 0;
    put_integer(reply, "total", (int64_t)l.total);
    put_raw(reply, ",\"changes\":[");
    for (size_t i = begin; i < l.total; i++) {
        const struct change *change = &l.changes[i % MAX_CHANGES];
        put_raw(reply, "%s[%lld,", i > begin ? "," : "", (long long)change->at_ns);
        put_string(reply, change->device.name);
        put_raw(reply, ",");
        put_string(reply, change->device.driver);
        put_raw(reply, ",\"%s\",%lld,%lld]", change->what, (long long)change->sent,
                (long long)change->received);
    }
    put_raw(reply, "]");
    pthread_mutex_unlock(&l.lock);
}

void lower_stop(const struct request *request, struct reply *reply)
{
    (void)request;
    (void)reply;
    close_lower();
}
