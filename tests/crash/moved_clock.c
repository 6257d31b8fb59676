/* Preloaded into a redis-server: its wall clock shows what a file says, in microseconds, and stands still between. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shown;

static int64_t now_us(void) {
    if (shown == NULL) {
        int file = open(getenv("MOVED_CLOCK"), O_RDONLY);
        void *page = mmap(NULL, sizeof *shown, PROT_READ, MAP_SHARED, file, 0);
        if (file < 0 || page == MAP_FAILED) abort();
        close(file);
        shown = page;
    }
    return *shown;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz) {
    int64_t us = now_us();
    (void)tz;
    tv->tv_sec = us / 1000000;
    tv->tv_usec = us % 1000000;
    return 0;
}

time_t time(time_t *out) {
    time_t seconds = now_us() / 1000000;
    if (out != NULL) *out = seconds;
    return seconds;
}

/* Timers and time-outs of the server itself go by the other clocks, which run on. */
int clock_gettime(clockid_t which, struct timespec *ts) {
    static int (*original)(clockid_t, struct timespec *);
    if (which != CLOCK_REALTIME) {
        if (original == NULL) original = dlsym(RTLD_NEXT, "clock_gettime");
        return original(which, ts);
    }
    int64_t us = now_us();
    ts->tv_sec = us / 1000000;
    ts->tv_nsec = us % 1000000 * 1000;
    return 0;
}
