/* What the workload has done, second by second: a guest that is held back writes and sends less
 * than it was asked to, and only it can tell. Counts are since each part began.
 */
#include "probe.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum {
    MOST = 4000, /* seconds that are kept, the newest */
    STEP_NS = 100000000, /* so soon it ends when it is told to */
};

struct second {
    int64_t at_ns;
    uint64_t pages, packets, bytes;
};

static struct {
    pthread_t thread;
    bool open;
    atomic_bool quit;
    pthread_mutex_t lock;
    size_t count;
    struct second seconds[MOST]; /* a ring */
} w = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void note(void)
{
    pthread_mutex_lock(&w.lock);
    w.seconds[w.count++ % MOST] = (struct second){
        .at_ns = monotonic_ns(),
        .pages = dirty_writes(),
        .packets = stream_sent(),
        .bytes = tcp_received(),
    };
    pthread_mutex_unlock(&w.lock);
}

static void *work_thread(void *unused)
{
    int64_t due = monotonic_ns();
    while (!w.quit) {
        int64_t now = monotonic_ns();
        if (now >= due) {
            note();
            due = now + NS_PER_S;
        }
        sleep_until(due - now > STEP_NS ? now + STEP_NS : due);
    }
    return unused;
}

static void end(void)
{
    if (!w.open)
        return;
    w.quit = true;
    pthread_join(w.thread, NULL);
    w.open = false;
}

void work_start(const struct request *request, struct reply *reply)
{
    (void)request;
    end();
    w.quit = false;
    w.count = 0;
    int why = pthread_create(&w.thread, NULL, work_thread, NULL);
    if (why)
        return fail(reply, "work thread: %s", strerror(why));
    w.open = true;
}

void work_stop(const struct request *request, struct reply *reply)
{
    (void)request;
    (void)reply;
    if (w.open)
        note();
    end();
}

void work_log(const struct request *request, struct reply *reply)
{
    (void)request;
    pthread_mutex_lock(&w.lock);
    put_raw(reply, ",\"seconds\":[");
    size_t first = w.count > MOST ? w.count - MOST : 0;
    for (size_t i = first; i < w.count; i++) {
        const struct second *one = &w.seconds[i % MOST];
        put_raw(reply, "%s[%lld,%llu,%llu,%llu]", i > first ? "," : "", (long long)one->at_ns,
                (unsigned long long)one->pages, (unsigned long long)one->packets,
                (unsigned long long)one->bytes);
    }
    put_raw(reply, "]");
    pthread_mutex_unlock(&w.lock);
}
