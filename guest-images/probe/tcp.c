/* TCP beside the streams: an echoing server, and connections that send and wait for their echo. */
#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 64, MESSAGE = 64, CONNECT_TIMEOUT_MS = 3000 };

struct connection {
    int fd; /* -1: gone */
    int64_t last_byte_ns, longest_ns;
};

struct side {
    pthread_t thread;
    bool open;
    int listener; /* the server's; -1 of a client */
    int wake;
    int64_t interval_ns;
    pthread_mutex_t lock;
    struct connection connections[MAX_CONNECTIONS];
    int opened, resets;
};

static struct side server = {.lock = PTHREAD_MUTEX_INITIALIZER},
                   client = {.lock = PTHREAD_MUTEX_INITIALIZER};
static atomic_uint_fast64_t received; /* echoes, in bytes */

/* --- shared by both sides --------------------------------------------------------------------- */

static void end_connection(struct side *side, struct connection *connection, bool reset)
{
    close(connection->fd);
    connection->fd = -1;
    side->resets += reset;
}

static int connections_to_poll(struct side *side, struct pollfd *fds, struct connection **who)
{
    int count = 0;
    for (int i = 0; i < side->opened; i++) {
        if (side->connections[i].fd >= 0) {
            who[count] = &side->connections[i];
            fds[count++] = (struct pollfd){.fd = side->connections[i].fd, .events = POLLIN};
        }
    }
    return count;
}

/* Takes what there is. The server sends it back, the client notes how long it waited for it. */
static void take_bytes(struct side *side, struct connection *connection, bool echo)
{
    char bytes[4096];
    ssize_t length = recv(connection->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    int64_t now = monotonic_ns();
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length <= 0)
        return end_connection(side, connection, length < 0);
    if (now - connection->last_byte_ns > connection->longest_ns)
        connection->longest_ns = now - connection->last_byte_ns;
    connection->last_byte_ns = now;
    if (!echo)
        received += (uint64_t)length;
    if (echo && send(connection->fd, bytes, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
        errno != EAGAIN)
        end_connection(side, connection, true);
}

uint64_t tcp_received(void)
{
    return received;
}

static void close_side(struct side *side)
{
    if (!side->open)
        return;
    uint64_t one = 1;
    if (write(side->wake, &one, sizeof one) < 0)
        return;
    pthread_join(side->thread, NULL);
    for (int i = 0; i < side->opened; i++)
        if (side->connections[i].fd >= 0)
            close(side->connections[i].fd);
    if (side->listener >= 0)
        close(side->listener);
    close(side->wake);
    side->open = false;
    side->opened = side->resets = 0;
}

static bool start_side(struct side *side, struct reply *reply, void *(*run)(void *))
{
    side->wake = eventfd(0, EFD_CLOEXEC);
    int why = side->wake < 0 ? errno : pthread_create(&side->thread, NULL, run, NULL);
    if (why) {
        if (side->wake >= 0)
            close(side->wake);
        fail(reply, "TCP thread: %s", strerror(why));
    }
    side->open = !why;
    return side->open;
}

/* --- the server ------------------------------------------------------------------------------- */

static void accept_one(void)
{
    int fd = accept4(server.listener, NULL, NULL, SOCK_CLOEXEC), slot = 0, on = 1;
    while (slot < server.opened && server.connections[slot].fd >= 0)
        slot++;
    if (fd < 0)
        return;
    if (slot == MAX_CONNECTIONS) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    server.connections[slot] = (struct connection){.fd = fd, .last_byte_ns = monotonic_ns()};
    if (slot == server.opened)
        server.opened++;
}

static void *server_thread(void *unused)
{
    struct pollfd fds[MAX_CONNECTIONS + 2];
    struct connection *who[MAX_CONNECTIONS];
    for (;;) {
        fds[0] = (struct pollfd){.fd = server.wake, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = server.listener, .events = POLLIN};
        int count = connections_to_poll(&server, fds + 2, who);
        if (poll(fds, (nfds_t)count + 2, -1) < 0)
            continue;
        if (fds[0].revents)
            return unused;
        for (int i = 0; i < count; i++)
            if (fds[i + 2].revents)
                take_bytes(&server, who[i], true);
        if (fds[1].revents)
            accept_one();
    }
}

void tcp_listen(const struct request *request, struct reply *reply)
{
    int64_t port = 0;
    if (!take_integer(request, reply, "port", 0, 65535, &port))
        return;
    close_side(&server);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof here;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail(reply, "socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    server.listener = fd;
    if (bind(fd, (struct sockaddr *)&here, length) != 0 || listen(fd, MAX_CONNECTIONS) != 0 ||
        getsockname(fd, (struct sockaddr *)&here, &length) != 0)
        fail(reply, "TCP port %d: %s", (int)port, strerror(errno));
    if (reply->failed || !start_side(&server, reply, server_thread)) {
        close(fd);
        return;
    }
    put_integer(reply, "port", ntohs(here.sin_port));
}

/* --- the client ------------------------------------------------------------------------------- */

static void send_messages(void)
{
    static const char message[MESSAGE];
    for (int i = 0; i < client.opened; i++) {
        struct connection *one = &client.connections[i];
        if (one->fd >= 0 && send(one->fd, message, MESSAGE, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
            errno != EAGAIN)
            end_connection(&client, one, true);
    }
}

static void *client_thread(void *unused)
{
    struct pollfd fds[MAX_CONNECTIONS + 1];
    struct connection *who[MAX_CONNECTIONS];
    int64_t due = monotonic_ns();
    for (;;) {
        int64_t now = monotonic_ns();
        pthread_mutex_lock(&client.lock);
        if (now >= due) {
            send_messages();
            due = now - due < client.interval_ns ? due + client.interval_ns
                                                 : now + client.interval_ns;
        }
        int count = connections_to_poll(&client, fds + 1, who);
        pthread_mutex_unlock(&client.lock);

        fds[0] = (struct pollfd){.fd = client.wake, .events = POLLIN};
        int64_t left = due > now ? due - now : 0;
        struct timespec wait = {left / NS_PER_S, left % NS_PER_S};
        if (ppoll(fds, (nfds_t)count + 1, &wait, NULL) < 0)
            continue;
        if (fds[0].revents)
            return unused;
        pthread_mutex_lock(&client.lock);
        for (int i = 0; i < count; i++)
            if (fds[i + 1].revents)
                take_bytes(&client, who[i], false);
        pthread_mutex_unlock(&client.lock);
    }
}

/* A connected socket, or -1 with the reason in errno; all connections share one deadline. */
static int connect_to(const struct sockaddr_in *to, int64_t deadline_ns)
{
    int on = 1, why = 0, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t length = sizeof why;
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (const struct sockaddr *)to, sizeof *to) != 0) {
        why = errno;
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        int64_t left = (deadline_ns - monotonic_ns()) / NS_PER_MS;
        if (why == EINPROGRESS && poll(&ready, 1, left > 0 ? (int)left : 0) <= 0)
            why = ETIMEDOUT;
        else if (why == EINPROGRESS)
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &length);
    }
    if (!why)
        return fd;
    close(fd);
    errno = why;
    return -1;
}

void tcp_open(const struct request *request, struct reply *reply)
{
    int64_t port = REQUIRED, count = 1, interval_ms = 10;
    struct in_addr to;
    if (!take_address(request, reply, "to", &to) ||
        !take_integer(request, reply, "port", 1, 65535, &port) ||
        !take_integer(request, reply, "count", 1, MAX_CONNECTIONS, &count) ||
        !take_integer(request, reply, "interval_ms", 1, 60000, &interval_ms))
        return;
    close_side(&client);
    struct sockaddr_in there = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = to};
    int64_t deadline_ns = monotonic_ns() + CONNECT_TIMEOUT_MS * NS_PER_MS;
    client.listener = -1;
    received = 0;
    client.interval_ns = interval_ms * NS_PER_MS;
    for (client.opened = 0; client.opened < count && !reply->failed; client.opened++) {
        int fd = connect_to(&there, deadline_ns);
        if (fd < 0) {
            fail(reply, "connection %d of %d: %s", client.opened + 1, (int)count, strerror(errno));
            break;
        }
        client.connections[client.opened] =
            (struct connection){.fd = fd, .last_byte_ns = monotonic_ns()};
    }
    int64_t now = monotonic_ns(); /* the wait for the others' handshakes is no stall */
    for (int i = 0; i < client.opened; i++)
        client.connections[i].last_byte_ns = now;
    if (reply->failed || !start_side(&client, reply, client_thread)) {
        while (client.opened > 0)
            close(client.connections[--client.opened].fd);
        return;
    }
    put_integer(reply, "opened", client.opened);
}

void tcp_status(const struct request *request, struct reply *reply)
{
    (void)request;
    if (!client.open)
        return fail(reply, "no connection was opened");
    int alive = 0;
    int64_t longest = 0;
    pthread_mutex_lock(&client.lock);
    int64_t now = monotonic_ns();
    for (int i = 0; i < client.opened; i++) {
        const struct connection *one = &client.connections[i];
        int64_t waiting = one->fd >= 0 ? now - one->last_byte_ns : 0;
        alive += one->fd >= 0;
        longest = one->longest_ns > longest ? one->longest_ns : longest;
        longest = waiting > longest ? waiting : longest;
    }
    put_integer(reply, "opened", client.opened);
    put_integer(reply, "alive", alive);
    put_integer(reply, "resets", client.resets);
    put_raw(reply, ",\"waiting_ms\":[");
    for (int i = 0, open = 0; i < client.opened; i++)
        if (client.connections[i].fd >= 0)
            put_raw(reply, "%s%.3f", open++ ? "," : "",
                    (double)(now - client.connections[i].last_byte_ns) / 1e6);
    put_raw(reply, "]");
    pthread_mutex_unlock(&client.lock);
    put_real(reply, "stall_ms", (double)longest / 1e6);
}

void tcp_close(const struct request *request, struct reply *reply)
{
    (void)request;
    (void)reply;
    close_side(&client);
    close_side(&server);
}
