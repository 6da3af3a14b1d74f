/* Rewrites memory at a set rate with a pattern that can be verified to the byte.
 *
 * Pages are written round robin, so how often a page was written follows from the number of writes
 * alone, and what it must hold from (seed, page, generation). A page that was lost, torn, stale or
 * taken from elsewhere is wrong by its content.
 */
#include "probe.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, WORDS = PAGE / 8, STEP_NS = 5000000 };
#define MAX_DEBT_NS (4 * (int64_t)STEP_NS) /* what a pause leaves behind is not made good in a burst */

static struct {
    pthread_t thread;
    pthread_mutex_t lock; /* held for a page by the writer, for the whole region by the check */
    bool open;
    atomic_bool quit;
    uint64_t *memory;
    uint64_t pages, seed, writes;
    double bytes_s;
    int64_t began_ns;
} d = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t mix(uint64_t x) /* splitmix64 */
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t word_of(uint64_t page, uint64_t generation, uint64_t word)
{
    return mix(mix(d.seed ^ page << 32) + generation) + word * UINT64_C(0x9e3779b97f4a7c15);
}

static void write_page(uint64_t page, uint64_t generation)
{
    uint64_t *at = d.memory + page * WORDS, first = word_of(page, generation, 0);
    for (uint64_t word = 0; word < WORDS; word++)
        at[word] = first + word * UINT64_C(0x9e3779b97f4a7c15);
}

/* Generation 0 is the first fill; `writes` counts what came after it. */
static uint64_t generation_of(uint64_t page)
{
    return d.writes / d.pages + (page < d.writes % d.pages);
}

static void *dirty_thread(void *unused)
{
    int64_t paid_until = monotonic_ns(), next = paid_until;
    double page_ns = PAGE / d.bytes_s * 1e9, debt = 0;
    while (!d.quit) {
        int64_t now = monotonic_ns();
        debt += (double)(now - paid_until < MAX_DEBT_NS ? now - paid_until : MAX_DEBT_NS);
        paid_until = now;
        for (; debt >= page_ns && !d.quit; debt -= page_ns) {
            pthread_mutex_lock(&d.lock);
            write_page(d.writes % d.pages, d.writes / d.pages + 1);
            d.writes++;
            pthread_mutex_unlock(&d.lock);
        }
        next = next + STEP_NS > now ? next + STEP_NS : now + STEP_NS;
        sleep_until(next);
    }
    return unused;
}

static void close_region(void)
{
    if (!d.open)
        return;
    if (d.bytes_s > 0) {
        d.quit = true;
        pthread_join(d.thread, NULL);
    }
    munmap(d.memory, d.pages * PAGE);
    d.open = false;
}

void dirty_start(const struct request *request, struct reply *reply)
{
    int64_t mib = REQUIRED, seed = 1;
    double mib_s;
    if (!take_integer(request, reply, "mib", 1, 1 << 20, &mib) ||
        !take_real(request, reply, "mib_s", 0, 1e6, &mib_s) ||
        !take_integer(request, reply, "seed", 0, INT64_MAX, &seed))
        return;
    close_region();
    d.pages = (uint64_t)mib * (1 << 20) / PAGE;
    d.seed = (uint64_t)seed;
    d.writes = 0;
    d.bytes_s = mib_s * (1 << 20);
    d.quit = false;
    d.memory =
        mmap(NULL, d.pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (d.memory == MAP_FAILED)
        return fail(reply, "%lld MiB: %s", (long long)mib, strerror(errno));
    for (uint64_t page = 0; page < d.pages; page++)
        write_page(page, 0);
    d.began_ns = monotonic_ns();
    int why = mib_s > 0 ? pthread_create(&d.thread, NULL, dirty_thread, NULL) : 0;
    if (why) {
        munmap(d.memory, d.pages * PAGE);
        return fail(reply, "writer thread: %s", strerror(why));
    }
    d.open = true;
    put_integer(reply, "pages", (int64_t)d.pages);
}

static bool is_open(struct reply *reply)
{
    if (!d.open)
        fail(reply, "no memory is being dirtied");
    return d.open;
}

uint64_t dirty_writes(void)
{
    pthread_mutex_lock(&d.lock);
    uint64_t writes = d.open ? d.writes : 0;
    pthread_mutex_unlock(&d.lock);
    return writes;
}

void dirty_status(const struct request *request, struct reply *reply)
{
    (void)request;
    if (!is_open(reply))
        return;
    pthread_mutex_lock(&d.lock);
    uint64_t writes = d.writes;
    pthread_mutex_unlock(&d.lock);
    double seconds = (double)(monotonic_ns() - d.began_ns) / 1e9;
    put_integer(reply, "pages", (int64_t)d.pages);
    put_integer(reply, "writes", (int64_t)writes);
    put_real(reply, "mib_s", (double)writes * PAGE / (1 << 20) / seconds);
}

/* The index of the first wrong word of a page, or WORDS. */
static uint64_t first_wrong_word(uint64_t page)
{
    uint64_t generation = generation_of(page), first = word_of(page, generation, 0);
    for (uint64_t word = 0; word < WORDS; word++)
        if (d.memory[page * WORDS + word] != first + word * UINT64_C(0x9e3779b97f4a7c15))
            return word;
    return WORDS;
}

/* The earlier generation that this word belongs to, or -1: a stale page says from which pass it is. */
static int64_t stale_generation(uint64_t page, uint64_t word)
{
    for (uint64_t generation = generation_of(page); generation-- > 0;)
        if (d.memory[page * WORDS + word] == word_of(page, generation, word))
            return (int64_t)generation;
    return -1;
}

static void put_wrong(struct reply *reply, uint64_t page, uint64_t word)
{
    char expected[17], found[17];
    snprintf(expected, sizeof expected, "%016" PRIx64, word_of(page, generation_of(page), word));
    snprintf(found, sizeof found, "%016" PRIx64, d.memory[page * WORDS + word]);
    put_integer(reply, "offset", (int64_t)word * 8);
    put_text(reply, "expected", expected);
    put_text(reply, "found", found);
    put_integer(reply, "generation", (int64_t)generation_of(page));
    put_integer(reply, "found_generation", stale_generation(page, word));
}

void dirty_verify(const struct request *request, struct reply *reply)
{
    (void)request;
    if (!is_open(reply))
        return;
    pthread_mutex_lock(&d.lock);
    uint64_t page = 0, word = WORDS;
    while (page < d.pages && (word = first_wrong_word(page)) == WORDS)
        page++;
    put_integer(reply, "pages", (int64_t)d.pages);
    put_integer(reply, "writes", (int64_t)d.writes);
    put_integer(reply, "wrong_page", page < d.pages ? (int64_t)page : -1);
    if (page < d.pages)
        put_wrong(reply, page, word);
    pthread_mutex_unlock(&d.lock);
}

/* Breaks a byte on purpose, so that the check can be seen to fire. The writer mends it when it comes
 * round: let it rest (mib_s 0) to be sure. */
void dirty_corrupt(const struct request *request, struct reply *reply)
{
    int64_t page = REQUIRED, offset = 0;
    if (!is_open(reply) ||
        !take_integer(request, reply, "page", 0, (int64_t)d.pages - 1, &page) ||
        !take_integer(request, reply, "offset", 0, PAGE - 1, &offset))
        return;
    pthread_mutex_lock(&d.lock);
    ((unsigned char *)d.memory)[page * PAGE + offset] ^= 0xff;
    pthread_mutex_unlock(&d.lock);
}

void dirty_stop(const struct request *request, struct reply *reply)
{
    (void)request;
    (void)reply;
    close_region();
}
