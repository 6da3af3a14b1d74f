/* Two isochronous streams of numbered UDP packets over one socket: ours out, the other side's in.
 *
 * One thread wakes once an interval, takes what has come and sends one packet. The kernel stamps
 * arrivals, so it does not matter when the thread gets to them. A slot that was missed is skipped,
 * never made good by a burst; the numbers are contiguous over the packets that were sent. Logs lie
 * in address space that is reserved once and touched as it fills: no copy, no lock.
 */
#include "probe.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    RECEIPTS = 16,
    MAX_PAYLOAD = 1400,
    MAX_JUMPS = 1000,
    MAX_DROPS = 1000,
    BATCH = 64,
    RECEIVE_BUFFER = 8 << 20,
    IDLE_INTERVAL_NS = 1000000, /* between two looks at the socket while nothing is sent */
};
#ifndef MAX_RECORDS /* of a log; a test makes it small to see it overflow */
#define MAX_RECORDS (4 << 20)
#endif
#define MAGIC 0x626f7270u /* "prob" */
#define NO_SEQ UINT32_MAX
#define JUMP_NS (10 * NS_PER_MS)

/* On the wire, little endian, then padding up to the payload's size. */
struct receipt {
    uint32_t seq;
    uint64_t received_ns;
} __attribute__((packed));

struct packet {
    uint32_t magic;
    uint16_t protocol;
    uint16_t receipts;
    uint32_t stream;
    uint32_t seq;
    uint64_t sent_ns;
    uint32_t highest;
    uint32_t zero;
    struct receipt receipt[RECEIPTS];
} __attribute__((packed));

_Static_assert(sizeof(struct packet) == 224, "the least payload that a scenario may ask for");

/* In a log, as it is handed out: little endian on every machine that we run on. */
struct arrival {
    uint32_t seq;
    uint64_t sent_ns;
    uint64_t received_ns;
} __attribute__((packed));

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "logs are handed out as they lie in memory");

struct jump {
    int64_t at_ns, delta_ns;
};

/* By the time that a row of the arrivals was received, the socket had dropped so many. */
struct drop {
    size_t row;
    uint32_t count;
};

static struct {
    pthread_t thread;
    bool open;
    int socket;
    uint32_t id;
    int fifo;

    /* Set by the control thread before it raises `sending`. */
    struct sockaddr_storage to;
    socklen_t to_length;
    struct pace pace;
    pthread_mutex_t send_lock; /* held for a packet, so that no packet follows a stop */
    atomic_bool sending, quit;

    atomic_uint_fast64_t sent, skipped, send_errors, received, strays, unlogged,
        dropped_records, socket_drops;
    atomic_int_fast64_t first_sent_ns, last_sent_ns;
    atomic_size_t arrivals, receipts, sends, jumps, drops;

    /* The thread's own. */
    struct receipt newest[RECEIPTS];
    size_t newest_count;
    uint32_t highest;

    struct arrival *arrival;
    struct receipt *receipt;
    uint64_t *receipted; /* a bit for each of our numbers: a receipt comes up to 16 times */
    uint64_t *send; /* when each of our numbers was sent */
    struct jump jump[MAX_JUMPS];
    struct drop drop[MAX_DROPS]; /* the first ones; the count of all goes on */
} s = {.socket = -1, .send_lock = PTHREAD_MUTEX_INITIALIZER};

bool stream_may_use_fifo(int priority)
{
    struct sched_param fifo = {.sched_priority = priority}, other = {0};
    if (priority < 1 || sched_setscheduler(0, SCHED_FIFO, &fifo) != 0)
        return false;
    sched_setscheduler(0, SCHED_OTHER, &other);
    s.fifo = priority;
    return true;
}

/* --- the thread ------------------------------------------------------------------------------- */

static void note_receipts(const struct packet *packet)
{
    size_t count = le16toh(packet->receipts);
    for (size_t i = 0; i < count && i < RECEIPTS; i++) {
        uint32_t seq = le32toh(packet->receipt[i].seq);
        if (seq >= MAX_RECORDS)
            s.dropped_records++;
        if (seq >= MAX_RECORDS || (s.receipted[seq / 64] >> seq % 64 & 1))
            continue;
        s.receipted[seq / 64] |= UINT64_C(1) << seq % 64;
        size_t at = atomic_load_explicit(&s.receipts, memory_order_relaxed);
        s.receipt[at] = packet->receipt[i];
        atomic_store_explicit(&s.receipts, at + 1, memory_order_release);
    }
}

static void note_arrival(const struct packet *packet, size_t length, int64_t received_ns)
{
    if (length < sizeof *packet || le32toh(packet->magic) != MAGIC ||
        le16toh(packet->protocol) != PROTOCOL || le32toh(packet->stream) != s.id) {
        s.strays++;
        return;
    }
    uint32_t seq = le32toh(packet->seq);
    s.received++;
    if (s.highest == NO_SEQ || seq > s.highest)
        s.highest = seq;
    memmove(s.newest + 1, s.newest, sizeof s.newest - sizeof *s.newest);
    s.newest[0] = (struct receipt){htole32(seq), htole64((uint64_t)received_ns)};
    if (s.newest_count < RECEIPTS)
        s.newest_count++;

    size_t at = atomic_load_explicit(&s.arrivals, memory_order_relaxed);
    if (at < MAX_RECORDS) {
        s.arrival[at] =
            (struct arrival){seq, le64toh(packet->sent_ns), (uint64_t)received_ns};
        atomic_store_explicit(&s.arrivals, at + 1, memory_order_release);
    } else {
        s.unlogged++;
        s.dropped_records++;
    }
    note_receipts(packet);
}

/* The kernel counts what it dropped because our buffer was full: not the network's loss. A message
 * carries the count of when it was queued, so what was dropped came before it: before the next row. */
static void note_drops(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            uint32_t drops;
            memcpy(&drops, CMSG_DATA(c), sizeof drops);
            size_t at = atomic_load_explicit(&s.drops, memory_order_relaxed);
            if (drops != (uint32_t)s.socket_drops && at < MAX_DROPS) {
                s.drop[at] = (struct drop){s.arrivals, drops};
                atomic_store_explicit(&s.drops, at + 1, memory_order_release);
            }
            s.socket_drops = drops;
        }
    }
}

/* What was dropped after the last packet that was received, no message tells. */
static uint64_t drops_so_far(void)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof info;
    if (s.open && getsockopt(s.socket, SOL_SOCKET, SO_MEMINFO, info, &size) == 0 &&
        info[SK_MEMINFO_DROPS] > s.socket_drops)
        return info[SK_MEMINFO_DROPS];
    return s.socket_drops;
}

static void take_arrivals(void)
{
    static struct packet packets[BATCH];
    static char controls[BATCH][128];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    int count;
    do {
        for (int i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){&packets[i], sizeof packets[i]};
            messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i],
                                                       .msg_iovlen = 1,
                                                       .msg_control = controls[i],
                                                       .msg_controllen = sizeof controls[i]}};
        }
        count = recvmmsg(s.socket, messages, BATCH, MSG_DONTWAIT, NULL);
        int64_t offset = count > 0 ? realtime_minus_monotonic() : 0;
        for (int i = 0; i < count; i++) {
            struct msghdr *header = &messages[i].msg_hdr;
            note_drops(header);
            note_arrival(&packets[i], messages[i].msg_len, received_at(header, offset));
        }
    } while (count == BATCH);
}

static void send_one(void)
{
    static unsigned char bytes[MAX_PAYLOAD];
    struct packet *packet = (struct packet *)bytes;
    uint32_t seq = (uint32_t)s.sent;
    *packet = (struct packet){.magic = htole32(MAGIC),
                              .protocol = htole16(PROTOCOL),
                              .receipts = htole16((uint16_t)s.newest_count),
                              .stream = htole32(s.id),
                              .seq = htole32(seq),
                              .highest = htole32(s.highest)};
    memcpy(packet->receipt, s.newest, sizeof s.newest);
    int64_t now = monotonic_ns();
    packet->sent_ns = htole64((uint64_t)now);
    /* A number that could not be sent is used up: to the network's user it is a lost packet. */
    const struct sockaddr *to = (const struct sockaddr *)&s.to;
    if (sendto(s.socket, bytes, s.pace.payload, MSG_DONTWAIT, to, s.to_length) < 0)
        s.send_errors++;
    if (seq < MAX_RECORDS) {
        s.send[seq] = (uint64_t)now;
        atomic_store_explicit(&s.sends, seq + 1, memory_order_release);
    }
    if (seq == 0)
        s.first_sent_ns = now;
    s.last_sent_ns = now;
    s.sent++;
}

static void note_jump(int64_t before, int64_t delta)
{
    size_t count = atomic_load_explicit(&s.jumps, memory_order_relaxed);
    s.jump[count % MAX_JUMPS] = (struct jump){before, delta};
    atomic_store_explicit(&s.jumps, count + 1, memory_order_release);
}

static void *stream_thread(void *unused)
{
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    bool was_sending = false;
    int64_t due = monotonic_ns(), last = due;
    while (!s.quit) {
        bool sending = s.sending;
        int64_t interval = sending ? s.pace.interval_ns : IDLE_INTERVAL_NS;
        int64_t now = monotonic_ns();
        if (sending != was_sending)
            due = now;
        was_sending = sending;
        if (now - last > interval + JUMP_NS)
            note_jump(last, now - last);
        last = now;
        int64_t missed = (now - due) / interval;
        if (missed > 0) {
            due += missed * interval;
            if (sending)
                s.skipped += (uint64_t)missed;
        }
        take_arrivals();
        pthread_mutex_lock(&s.send_lock);
        if (sending && s.sending)
            send_one();
        pthread_mutex_unlock(&s.send_lock);
        due += interval;
        sleep_until(due);
    }
    return unused;
}

/* --- commands --------------------------------------------------------------------------------- */

static void *reserve(void *old, size_t bytes)
{
    if (old && madvise(old, bytes, MADV_DONTNEED) == 0)
        return old;
    void *new = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return new == MAP_FAILED ? NULL : new;
}

static bool reset_logs(void)
{
    s.arrival = reserve(s.arrival, sizeof *s.arrival * MAX_RECORDS);
    s.receipt = reserve(s.receipt, sizeof *s.receipt * MAX_RECORDS);
    s.send = reserve(s.send, sizeof *s.send * MAX_RECORDS);
    s.receipted = reserve(s.receipted, MAX_RECORDS / 8 + sizeof *s.receipted);
    s.sent = s.skipped = s.send_errors = s.received = s.strays = 0;
    s.unlogged = s.dropped_records = s.socket_drops = 0;
    s.first_sent_ns = s.last_sent_ns = 0;
    s.arrivals = s.receipts = s.sends = s.jumps = s.drops = 0;
    s.newest_count = 0;
    s.highest = NO_SEQ;
    s.sending = s.quit = false;
    return s.arrival && s.receipt && s.send && s.receipted;
}

uint64_t stream_sent(void)
{
    return s.sent;
}

static void stop_sending(void)
{
    pthread_mutex_lock(&s.send_lock);
    s.sending = false;
    pthread_mutex_unlock(&s.send_lock);
}

static void close_stream(void)
{
    if (!s.open)
        return;
    stop_sending();
    s.quit = true;
    pthread_join(s.thread, NULL);
    s.socket_drops = drops_so_far();
    close(s.socket);
    s.open = false;
}

bool stream_equip(int fd)
{
    int on = 1, size = RECEIVE_BUFFER;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    return setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on) == 0;
}

static int bind_socket(uint16_t *port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(*port)};
    socklen_t length = sizeof here;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (stream_equip(fd) && bind(fd, (struct sockaddr *)&here, sizeof here) == 0 &&
        getsockname(fd, (struct sockaddr *)&here, &length) == 0) {
        *port = ntohs(here.sin_port);
        return fd;
    }
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static int start_thread(void)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (s.fifo) {
        struct sched_param parameters = {.sched_priority = s.fifo};
        pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
        pthread_attr_setschedpolicy(&attributes, SCHED_FIFO);
        pthread_attr_setschedparam(&attributes, &parameters);
    }
    int why = pthread_create(&s.thread, &attributes, stream_thread, NULL);
    pthread_attr_destroy(&attributes);
    return why;
}

bool stream_prepare(const struct request *request, struct reply *reply)
{
    int64_t id = REQUIRED;
    if (!take_integer(request, reply, "stream", 0, UINT32_MAX, &id))
        return false;
    close_stream();
    if (!reset_logs())
        return fail(reply, "no address space for the logs"), false;
    s.id = (uint32_t)id;
    return true;
}

bool stream_receive(int fd, struct reply *reply)
{
    s.socket = fd;
    int why = start_thread();
    s.open = !why;
    if (why) {
        close(s.socket);
        fail(reply, "stream thread: %s", strerror(why));
    }
    return s.open;
}

bool stream_take_pace(const struct request *request, struct reply *reply, struct pace *pace)
{
    int64_t interval_us = 1000, payload = 256;
    if (!take_integer(request, reply, "interval_us", 10, 1000000, &interval_us) ||
        !take_integer(request, reply, "payload", sizeof(struct packet), MAX_PAYLOAD, &payload))
        return false;
    *pace = (struct pace){interval_us * 1000, (size_t)payload};
    return true;
}

void stream_begin(const void *to, size_t length, struct pace pace)
{
    memcpy(&s.to, to, length);
    s.to_length = (socklen_t)length;
    s.pace = pace;
    s.sending = true;
}

void stream_open(const struct request *request, struct reply *reply)
{
    int64_t port = 0;
    if (!take_integer(request, reply, "port", 0, 65535, &port) || !stream_prepare(request, reply))
        return;
    uint16_t bound = (uint16_t)port;
    int fd = bind_socket(&bound);
    if (fd < 0)
        return fail(reply, "UDP port %d: %s", (int)port, strerror(errno));
    if (stream_receive(fd, reply))
        put_integer(reply, "port", bound);
}

void stream_send(const struct request *request, struct reply *reply)
{
    int64_t port = REQUIRED;
    struct in_addr address;
    struct pace pace;
    if (!take_address(request, reply, "to", &address) ||
        !take_integer(request, reply, "to_port", 1, 65535, &port) ||
        !stream_take_pace(request, reply, &pace))
        return;
    if (!s.open)
        return fail(reply, "no stream is open");
    if (s.sending || s.sent)
        return fail(reply, "this stream has been sent already: open a new one");
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = address};
    stream_begin(&to, sizeof to, pace);
}

void stream_status(const struct request *request, struct reply *reply)
{
    (void)request;
    put_bool(reply, "open", s.open);
    put_bool(reply, "sending", s.sending);
    put_integer(reply, "sent", (int64_t)s.sent);
    put_integer(reply, "skipped", (int64_t)s.skipped);
    put_integer(reply, "send_errors", (int64_t)s.send_errors);
    put_integer(reply, "first_sent_ns", s.first_sent_ns);
    put_integer(reply, "last_sent_ns", s.last_sent_ns);
    put_integer(reply, "received", (int64_t)s.received);
    put_integer(reply, "strays", (int64_t)s.strays);
    put_integer(reply, "unlogged", (int64_t)s.unlogged);
    put_integer(reply, "dropped_records", (int64_t)s.dropped_records);
    put_integer(reply, "socket_drops", (int64_t)drops_so_far());
    put_integer(reply, "jumps", (int64_t)s.jumps);
}

/* Ends the sending alone, so that what the other side has under way still arrives. */
void stream_stop(const struct request *request, struct reply *reply)
{
    stop_sending();
    stream_status(request, reply);
}

void stream_close(const struct request *request, struct reply *reply)
{
    close_stream();
    stream_status(request, reply);
}

static void put_records(const struct request *request, struct reply *reply, const void *records,
                        size_t size, size_t total)
{
    int64_t from = 0, max = 2000;
    if (!take_integer(request, reply, "from", 0, MAX_RECORDS, &from) ||
        !take_integer(request, reply, "max", 1, 100000, &max))
        return;
    size_t begin = (size_t)from < total ? (size_t)from : total;
    size_t count = total - begin < (size_t)max ? total - begin : (size_t)max;
    put_integer(reply, "total", (int64_t)total);
    put_integer(reply, "from", (int64_t)begin);
    put_integer(reply, "count", (int64_t)count);
    put_base64(reply, "data", count ? (const char *)records + begin * size : "", count * size);
}

void stream_log(const struct request *request, struct reply *reply)
{
    size_t total = atomic_load_explicit(&s.arrivals, memory_order_acquire);
    put_records(request, reply, s.arrival, sizeof *s.arrival, total);
}

void stream_receipts(const struct request *request, struct reply *reply)
{
    size_t total = atomic_load_explicit(&s.receipts, memory_order_acquire);
    put_records(request, reply, s.receipt, sizeof *s.receipt, total);
}

void stream_sends(const struct request *request, struct reply *reply)
{
    size_t total = atomic_load_explicit(&s.sends, memory_order_acquire);
    put_records(request, reply, s.send, sizeof *s.send, total);
}

void stream_drops(const struct request *request, struct reply *reply)
{
    (void)request;
    size_t total = atomic_load_explicit(&s.drops, memory_order_acquire);
    put_raw(reply, ",\"drops\":[");
    for (size_t i = 0; i < total; i++)
        put_raw(reply, "%s[%zu,%u]", i ? "," : "", s.drop[i].row, s.drop[i].count);
    put_raw(reply, "]");
}

void tick_log(const struct request *request, struct reply *reply)
{
    (void)request;
    size_t total = atomic_load_explicit(&s.jumps, memory_order_acquire);
    size_t begin = total > MAX_JUMPS ? total - MAX_JUMPS : 0;
    put_integer(reply, "total", (int64_t)total);
    put_raw(reply, ",\"jumps\":[");
    for (size_t i = begin; i < total; i++) {
        const struct jump *jump = &s.jump[i % MAX_JUMPS];
        put_raw(reply, "%s[%lld,%lld]", i > begin ? "," : "", (long long)jump->at_ns,
                (long long)jump->delta_ns);
    }
    put_raw(reply, "]");
}
