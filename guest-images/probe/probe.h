/* The probe: runs in the guest, and as the guest's peer on the fabric. One command a line, in JSON.
 *
 * Every part owns its threads and answers the commands that begin with its name; parts know each
 * other only through this header. Times are nanoseconds of CLOCK_MONOTONIC unless said otherwise.
 */
#ifndef PROBE_H
#define PROBE_H

#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define PROTOCOL 3
#define VERSION "1.0"

/* --- json.c: a flat object a line each way ---------------------------------------------------- */

enum { MAX_FIELDS = 16, MAX_KEY = 32, MAX_TEXT = 2048 };

struct field {
    char key[MAX_KEY];
    enum { IS_NULL, IS_BOOL, IS_INTEGER, IS_REAL, IS_TEXT } kind;
    int64_t integer;
    double real;
    char text[MAX_TEXT];
};

struct request {
    int count;
    struct field fields[MAX_FIELDS];
};

/* False leaves the reason in *why. Never reads past the terminating zero. */
bool json_read(const char *line, struct request *request, const char **why);
const struct field *json_find(const struct request *request, const char *key);

struct reply {
    char *data;
    size_t length, room;
    bool failed;
};

void reply_begin(struct reply *reply, const int64_t *id); /* NULL: the request had no id */
void reply_end(struct reply *reply);                      /* the closing brace and a newline */
void fail(struct reply *reply, const char *format, ...) __attribute__((format(printf, 2, 3)));
void put_integer(struct reply *reply, const char *key, int64_t value);
void put_real(struct reply *reply, const char *key, double value);
void put_bool(struct reply *reply, const char *key, bool value);
void put_text(struct reply *reply, const char *key, const char *value);
void put_string(struct reply *reply, const char *value); /* the value alone */
void put_base64(struct reply *reply, const char *key, const void *bytes, size_t length);
void put_raw(struct reply *reply, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A parameter; *value holds the default beforehand, REQUIRED if there is none. False: reply failed. */
#define REQUIRED INT64_MIN
bool take_integer(const struct request *, struct reply *, const char *key, int64_t low,
                  int64_t high, int64_t *value);
bool take_real(const struct request *, struct reply *, const char *key, double low, double high,
               double *value); /* always required */
bool take_address(const struct request *, struct reply *, const char *key, struct in_addr *value);
const char *text_or(const struct request *request, const char *key, const char *otherwise);

/* --- clock.c ---------------------------------------------------------------------------------- */

#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)

int64_t clock_ns(clockid_t clock);
int64_t monotonic_ns(void);
int64_t realtime_minus_monotonic(void); /* by the tightest of a few samples */
void sleep_until(int64_t at_ns);

struct msghdr;
/* The kernel's receive stamp (SO_TIMESTAMPNS) of a message as CLOCK_MONOTONIC; now if it has none. */
int64_t received_at(struct msghdr *message, int64_t offset);

/* --- net.c ------------------------------------------------------------------------------------ */

enum { MAX_DRIVER = 32 };

/* The driver that moves an interface's packets; empty if that can't be told. */
void net_driver(const char *name, char driver[MAX_DRIVER]);
/* The interface that was named, or the one of the lowest index that is not the loopback and has no
 * master: of a failover pair, the one that has the address. False: reply failed. */
bool net_choose(const struct request *, struct reply *, char *name);

/* --- stream.c: what a loop needs of it -------------------------------------------------------- */

struct pace {
    int64_t interval_ns;
    size_t payload;
};

bool stream_take_pace(const struct request *, struct reply *, struct pace *);
/* Ends the stream before and begins the logs of the one that is asked for. False: reply failed. */
bool stream_prepare(const struct request *, struct reply *);
bool stream_equip(int fd); /* room, receive stamps and the count of drops for a socket */
bool stream_receive(int fd, struct reply *); /* takes the socket, also if it fails */
void stream_begin(const void *to, size_t length, struct pace pace); /* to send, once received */

/* --- what work.c counts, since each part began -------------------------------------------------- */

uint64_t dirty_writes(void);  /* pages */
uint64_t stream_sent(void);   /* packets */
uint64_t tcp_received(void);  /* bytes that were echoed */

/* --- the parts -------------------------------------------------------------------------------- */

typedef void command(const struct request *, struct reply *);

int relay(const char *path); /* the exit status of a program that does nothing else */
int bridge_port(const char *bridge);
int serve_files(void);       /* likewise */

bool stream_may_use_fifo(int priority); /* also remembers it for the streams' thread */
command stream_open, stream_send, stream_stop, stream_close, stream_status, stream_log,
    stream_receipts, stream_sends, stream_drops, tick_log;
command dirty_start, dirty_status, dirty_verify, dirty_corrupt, dirty_stop;
command tcp_listen, tcp_open, tcp_status, tcp_close;
command work_start, work_stop, work_log;
command net_show, net_address;
command loop_start;
command lower_start, lower_log, lower_stop;
command capture_start, capture_log, capture_stop;
command run_start, run_wait, run_kill;

#endif
