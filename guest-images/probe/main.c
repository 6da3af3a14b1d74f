/* The control channel: a line in, a line out, nothing unasked.
 *
 * In the guest the channel is a virtio-serial port, whose other side comes and goes; the probe and
 * its streams stay. On the fabric it is standard input and output, and its end is the probe's.
 */
#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { MAX_LINE = 4096, CLOSED_PATIENCE_MS = 200 };

static struct {
    int in, out;
    bool fifo, quit;
    char line[MAX_LINE];
    size_t length;
    bool too_long; /* what is left of this line is thrown away */
} control = {.in = STDIN_FILENO, .out = STDOUT_FILENO};

static command hello, read_clocks, quit;

static const struct {
    const char *name;
    command *run;
} commands[] = {
    {"hello", hello},
    {"clock", read_clocks},
    {"net", net_show},
    {"addr", net_address},
    {"lower.start", lower_start},
    {"lower.log", lower_log},
    {"lower.stop", lower_stop},
    {"stream.open", stream_open},
    {"stream.send", stream_send},
    {"stream.stop", stream_stop},
    {"stream.close", stream_close},
    {"stream.status", stream_status},
    {"stream.log", stream_log},
    {"stream.receipts", stream_receipts},
    {"stream.sends", stream_sends},
    {"stream.drops", stream_drops},
    {"tick.log", tick_log},
    {"loop.start", loop_start},
    {"dirty.start", dirty_start},
    {"dirty.status", dirty_status},
    {"dirty.verify", dirty_verify},
    {"dirty.corrupt", dirty_corrupt},
    {"dirty.stop", dirty_stop},
    {"work.start", work_start},
    {"work.stop", work_stop},
    {"work.log", work_log},
    {"tcp.listen", tcp_listen},
    {"tcp.open", tcp_open},
    {"tcp.status", tcp_status},
    {"tcp.close", tcp_close},
    {"capture.start", capture_start},
    {"capture.log", capture_log},
    {"capture.stop", capture_stop},
    {"run.start", run_start},
    {"run.wait", run_wait},
    {"run.kill", run_kill},
    {"quit", quit},
};

/* --- commands of no part ---------------------------------------------------------------------- */

static void read_clocks(const struct request *request, struct reply *reply)
{
    (void)request;
    put_integer(reply, "mono_ns", monotonic_ns());
    put_integer(reply, "real_ns", clock_ns(CLOCK_REALTIME));
}

static void hello(const struct request *request, struct reply *reply)
{
    put_integer(reply, "protocol", PROTOCOL);
    put_text(reply, "version", VERSION);
    put_integer(reply, "pid", getpid());
    put_bool(reply, "fifo", control.fifo);
    put_integer(reply, "uptime_ms", clock_ns(CLOCK_BOOTTIME) / NS_PER_MS);
    read_clocks(request, reply);
}

static void quit(const struct request *request, struct reply *reply)
{
    (void)request;
    (void)reply;
    control.quit = true;
}

/* --- a line to its answer --------------------------------------------------------------------- */

static void run_line(const char *line, struct reply *reply)
{
    static struct request request;
    const char *why;
    reply_begin(reply, NULL);
    if (!json_read(line, &request, &why))
        return fail(reply, "%s", why);
    const struct field *id = json_find(&request, "id");
    if (!id || id->kind != IS_INTEGER)
        return fail(reply, "id must be an integer");
    reply_begin(reply, &id->integer);
    const char *name = text_or(&request, "do", "");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(&request, reply);
    fail(reply, "no command \"%s\" in protocol %d", name, PROTOCOL);
}

/* False: the other side is gone, and the rest of the answer with it. A port's bytes can come sooner
 * than the word that its other side is there (they travel in different queues), so a port that
 * seems closed is given a moment before its answer is dropped. */
static bool write_all(const char *data, size_t length)
{
    int64_t give_up_ns = monotonic_ns() + CLOSED_PATIENCE_MS * NS_PER_MS;
    while (length > 0) {
        ssize_t done = write(control.out, data, length);
        if (done > 0) {
            data += done;
            length -= (size_t)done;
        } else if (done < 0 && errno == EAGAIN) {
            struct pollfd room = {.fd = control.out, .events = POLLOUT};
            if (poll(&room, 1, -1) <= 0 || !(room.revents & (POLLHUP | POLLERR)))
                continue;
            if (monotonic_ns() > give_up_ns)
                return false;
            sleep_until(monotonic_ns() + 2 * NS_PER_MS);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

static void end_line(struct reply *reply)
{
    control.line[control.length] = 0;
    bool empty = control.length == 0 && !control.too_long;
    if (control.too_long || memchr(control.line, 0, control.length)) {
        reply_begin(reply, NULL);
        fail(reply, control.too_long ? "line too long" : "a zero byte in the line");
    } else if (!empty) {
        run_line(control.line, reply);
    }
    control.length = 0;
    control.too_long = false;
    if (empty)
        return;
    reply_end(reply);
    write_all(reply->data, reply->length);
}

static void take_bytes(const char *bytes, size_t length, struct reply *reply)
{
    for (size_t i = 0; i < length && !control.quit; i++) {
        if (bytes[i] == '\n')
            end_line(reply);
        else if (control.length + 1 < MAX_LINE)
            control.line[control.length++] = bytes[i];
        else
            control.too_long = true;
    }
}

/* --- channels --------------------------------------------------------------------------------- */

/* The device of the virtio-serial port called `name`; false: not (yet) there. */
static bool find_port(const char *name, char *path, size_t room)
{
    static const char folder[] = "/sys/class/virtio-ports";
    bool found = false;
    DIR *ports = opendir(folder);
    for (struct dirent *entry; ports && !found && (entry = readdir(ports));) {
        char file[512], text[128] = "";
        snprintf(file, sizeof file, "%s/%s/name", folder, entry->d_name);
        FILE *stream = fopen(file, "re");
        if (!stream)
            continue;
        if (fgets(text, sizeof text, stream))
            text[strcspn(text, "\n")] = 0;
        fclose(stream);
        found = strcmp(text, name) == 0;
        snprintf(path, room, "/dev/%s", entry->d_name);
    }
    if (ports)
        closedir(ports);
    return found;
}

static int open_port(const char *path)
{
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "probe: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    return fd;
}

/* Reads a port for good. Without its other side it reads as ended and polls as ready, so it is
 * waited for by edges: the kernel wakes us when bytes or a new other side come. */
static void serve_port(struct reply *reply)
{
    int waiter = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event edge = {.events = EPOLLIN | EPOLLET};
    if (waiter < 0 || epoll_ctl(waiter, EPOLL_CTL_ADD, control.in, &edge) != 0) {
        perror("probe: epoll");
        exit(1);
    }
    while (!control.quit) {
        char bytes[4096];
        ssize_t length = read(control.in, bytes, sizeof bytes);
        if (length > 0) {
            take_bytes(bytes, (size_t)length, reply);
            continue;
        }
        if (length == 0) { /* half a line of one controller is not the begin of another's */
            control.length = 0;
            control.too_long = false;
        }
        epoll_wait(waiter, &edge, 1, -1);
    }
}

static void serve_input(struct reply *reply)
{
    char bytes[4096];
    ssize_t length;
    while (!control.quit && ((length = read(control.in, bytes, sizeof bytes)) > 0 ||
                             (length < 0 && errno == EINTR)))
        if (length > 0)
            take_bytes(bytes, (size_t)length, reply);
}

int main(int count, char **arguments)
{
    static const struct option options[] = {{"port", required_argument, NULL, 'p'},
                                            {"port-name", required_argument, NULL, 'n'},
                                            {"fifo", required_argument, NULL, 'f'},
                                            {"relay", required_argument, NULL, 'r'},
                                            {"files", no_argument, NULL, 'i'},
                                            {"tap", required_argument, NULL, 't'},
                                            {NULL, 0, NULL, 0}};
    char path[512] = "";
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        if (option == 'p') {
            snprintf(path, sizeof path, "%s", optarg);
        } else if (option == 'n') {
            while (!find_port(optarg, path, sizeof path))
                sleep_until(monotonic_ns() + 50 * NS_PER_MS);
        } else if (option == 'f') {
            control.fifo = stream_may_use_fifo(atoi(optarg));
        } else if (option == 'r') {
            signal(SIGPIPE, SIG_IGN);
            return relay(optarg);
        } else if (option == 'i') {
            return serve_files();
        } else if (option == 't') {
            signal(SIGPIPE, SIG_IGN);
            return bridge_port(optarg);
        } else {
            fprintf(stderr, "use: probe [--port DEVICE | --port-name NAME] [--fifo PRIORITY]\n"
                            "     probe --relay SOCKET\n"
                            "     probe --files\n"
                            "     probe --tap BRIDGE\n");
            return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    struct reply reply = {0};
    if (*path) {
        control.in = control.out = open_port(path);
        serve_port(&reply);
    } else {
        serve_input(&reply);
    }
    free(reply.data);
    return 0;
}
