/* A command of whoever writes a test: one at a time, by the shell, in a process group of its own.
 *
 * Nothing goes on by itself here: output is taken, and the end is seen, while somebody waits for it.
 * A command that nobody waits for any more is ended by the next one. It is spawned, not forked: a
 * fork would make each page of the dirtied memory fault once more.
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    MOST = 64 << 10,     /* bytes that are kept of each output, the first ones */
    MOST_LEFT = 1 << 20, /* bytes that are taken after the end: something may go on and on */
    LOOK_MS = 20,        /* so late an end is seen whose outputs somebody else has open */
    MOST_WAIT_MS = 1000,
};

struct output {
    int fd; /* -1: closed */
    size_t kept;
    uint64_t total;
    char bytes[MOST];
};

static struct {
    pid_t pid; /* 0: none, or its end was seen */
    bool known;
    int status;
    struct output out, errors;
} r = {.out.fd = -1, .errors.fd = -1};

/* What is there to be taken now, `most` bytes of it. */
static void take(struct output *from, size_t most)
{
    char bytes[4096];
    ssize_t length;
    for (size_t taken = 0; from->fd >= 0 && taken < most; taken += (size_t)length) {
        length = read(from->fd, bytes, sizeof bytes);
        if (length < 0 && errno == EINTR) {
            length = 0;
            continue;
        }
        if (length <= 0) {
            if (length == 0 || errno != EAGAIN) {
                close(from->fd);
                from->fd = -1;
            }
            return;
        }
        size_t room = MOST - from->kept, more = (size_t)length < room ? (size_t)length : room;
        memcpy(from->bytes + from->kept, bytes, more);
        from->kept += more;
        from->total += (uint64_t)length;
    }
}

static void close_output(struct output *output)
{
    take(output, MOST_LEFT);
    if (output->fd >= 0)
        close(output->fd);
    output->fd = -1;
}

static void close_outputs(void)
{
    r.pid = 0;
    close_output(&r.out);
    close_output(&r.errors);
}

/* True once it has ended; then no more of it is taken. */
static bool has_ended(void)
{
    if (r.pid && waitpid(r.pid, &r.status, WNOHANG) == r.pid)
        close_outputs();
    return !r.pid;
}

static void end(void)
{
    if (!r.pid)
        return;
    kill(-r.pid, SIGKILL);
    while (waitpid(r.pid, &r.status, 0) < 0 && errno == EINTR)
        ;
    close_outputs();
}

/* The write end of a pipe whose other end is `output`; -1: there is none. */
static int open_output(struct output *output)
{
    int ends[2];
    output->kept = 0;
    output->total = 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    output->fd = ends[0];
    return ends[1];
}

/* 0, or an error's number. A guest may have no /bin/sh and a BusyBox that is one. */
static int spawn(const char *text, int out, int errors)
{
    char *command = (char *)text;
    char *by_shell[] = {"sh", "-c", command, NULL};
    char *by_busybox[] = {"busybox", "sh", "-c", command, NULL};
    char *environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                           "HOME=/root", "LC_ALL=C.UTF-8", NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t restored, unblocked;
    sigemptyset(&unblocked);
    sigemptyset(&restored);
    sigaddset(&restored, SIGPIPE);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, errors, STDERR_FILENO);
    posix_spawnattr_init(&how);
    posix_spawnattr_setflags(&how,
                             POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigdefault(&how, &restored);
    posix_spawnattr_setsigmask(&how, &unblocked);
    int why = posix_spawn(&r.pid, "/bin/sh", &files, &how, by_shell, environment);
    if (why == ENOENT)
        why = posix_spawn(&r.pid, "/bin/busybox", &files, &how, by_busybox, environment);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&files);
    if (why)
        r.pid = 0;
    return why;
}

void run_start(const struct request *request, struct reply *reply)
{
    const char *command = text_or(request, "command", "");
    if (!*command)
        return fail(reply, "command must be a text");
    end();
    int out = open_output(&r.out), errors = open_output(&r.errors);
    int why = out < 0 || errors < 0 ? errno : spawn(command, out, errors);
    if (out >= 0)
        close(out);
    if (errors >= 0)
        close(errors);
    r.known = !why;
    if (why) {
        close_outputs();
        fail(reply, "start a shell: %s", strerror(why));
    }
}

void run_wait(const struct request *request, struct reply *reply)
{
    int64_t ms = 0;
    if (!take_integer(request, reply, "ms", 0, MOST_WAIT_MS, &ms))
        return;
    if (!r.known)
        return fail(reply, "no command was run");
    int64_t until_ns = monotonic_ns() + ms * NS_PER_MS;
    bool ended;
    while (!(ended = has_ended()) && monotonic_ns() < until_ns) {
        struct pollfd outputs[] = {{.fd = r.out.fd, .events = POLLIN},
                                   {.fd = r.errors.fd, .events = POLLIN}};
        poll(outputs, 2, r.out.fd < 0 && r.errors.fd < 0 ? 1 : LOOK_MS);
        take(&r.out, MOST);
        take(&r.errors, MOST);
    }
    put_bool(reply, "ended", ended);
    if (!ended)
        return;
    put_integer(reply, "status", WIFEXITED(r.status) ? WEXITSTATUS(r.status) : 0);
    put_integer(reply, "signal", WIFSIGNALED(r.status) ? WTERMSIG(r.status) : 0);
    put_base64(reply, "out", r.out.bytes, r.out.kept);
    put_base64(reply, "errors", r.errors.bytes, r.errors.kept);
    put_integer(reply, "out_bytes", (int64_t)r.out.total);
    put_integer(reply, "errors_bytes", (int64_t)r.errors.total);
}

void run_kill(const struct request *request, struct reply *reply)
{
    (void)request;
    (void)reply;
    end();
}
