/* Faults of the disk and of the clock for one process, and the loss of power.
 *
 * As a shared object for LD_PRELOAD, it keeps for each file below a folder named `store` how many octets a successful fsync
 * has covered. The counts are extended attributes of the file, so they outlive the process. On command it makes one fsync or
 * write fail, and shifts CLOCK_REALTIME. Commands are in the file that FAULTS names, which is shared memory.
 *
 * As a program (-DPOWER_LOSS), it removes from files what no fsync has covered, as a loss of power does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Octets from the start of the file that are on disk. */
#define SYNCED "trusted.synced"
/* Octets that an fsync has lost although they can still be read: the kernel keeps such pages and takes them for written. */
#define HOLE_FROM "trusted.hole_from"
#define HOLE_TO "trusted.hole_to"

static int64_t recorded(int fd, const char *name) {
    int64_t value = 0;
    return fgetxattr(fd, name, &value, sizeof value) == sizeof value ? value : 0;
}

static void record(int fd, const char *name, int64_t value) {
    if (fsetxattr(fd, name, &value, sizeof value, 0)) abort();
}

#ifdef POWER_LOSS

/* Arguments: how many thousandths of the octets that are not on disk were written by chance, and files. */
int main(int count, char **arguments) {
    int64_t thousandths = atoll(arguments[1]);
    for (int at = 2; at < count; at++) {
        int fd = open(arguments[at], O_RDWR | O_CLOEXEC);
        struct stat file;
        if (fd < 0 || fstat(fd, &file)) return perror(arguments[at]), 1;
        int64_t synced = recorded(fd, SYNCED), from = recorded(fd, HOLE_FROM), to = recorded(fd, HOLE_TO);
        if (file.st_size > synced) {
            int64_t kept = synced + (file.st_size - synced) * thousandths / 1000;
            if (ftruncate(fd, kept)) return perror("ftruncate"), 1;
            printf("%s: %ld of %ld octets\n", arguments[at], (long)kept, (long)file.st_size);
        }
        if (to > from) {
            static const char zeros[4096];
            for (int64_t hole = from; hole < to; hole += sizeof zeros) {
                size_t len = to - hole < (int64_t)sizeof zeros ? to - hole : sizeof zeros;
                if (pwrite(fd, zeros, len, hole) != (ssize_t)len) return perror("pwrite"), 1;
            }
            printf("%s: zeros from %ld to %ld\n", arguments[at], (long)from, (long)to);
        }
        if (fstat(fd, &file)) return 1;
        record(fd, SYNCED, file.st_size);
        record(fd, HOLE_FROM, 0);
        record(fd, HOLE_TO, 0);
        close(fd);
    }
    return 0;
}

#else

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>

enum fault { NONE, SYNC_LOSES, SYNC_TEARS, SYNC_KEEPS_PAGES, WRITE_TEARS, SYNC_HANGS };

struct commands {
    int64_t clock_offset; /* seconds */
    int64_t fault;        /* the next one; set back when it has happened, or to end SYNC_HANGS */
};

static struct commands *commands;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof *commands, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) commands = mapped;
    close(fd);
}

#define REAL(name) \
    static typeof(name) *real; \
    if (!real) real = (typeof(name) *)dlsym(RTLD_NEXT, #name)

/* Reports whether this is a file below a folder named `store`. */
static int is_stored(int fd) {
    char link[64], path[4096];
    struct stat file;
    if (!commands || fstat(fd, &file) || !S_ISREG(file.st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0) return 0;
    path[len] = 0;
    return strstr(path, "/store/") != NULL;
}

static int takes(enum fault fault) {
    int64_t expected = fault;
    return __atomic_compare_exchange_n(&commands->fault, &expected, NONE, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static int failed(void) {
    errno = EIO;
    return -1;
}

static int synced(int fd, int (*real)(int)) {
    if (!is_stored(fd)) return real(fd);
    while (__atomic_load_n(&commands->fault, __ATOMIC_SEQ_CST) == SYNC_HANGS) usleep(5000);
    struct stat file;
    if (fstat(fd, &file)) return -1;
    int64_t before = recorded(fd, SYNCED);
    if (file.st_size > before) {
        if (takes(SYNC_LOSES)) return ftruncate(fd, before), failed();
        if (takes(SYNC_TEARS)) return ftruncate(fd, before + (file.st_size - before) / 2), failed();
        if (takes(SYNC_KEEPS_PAGES)) {
            if (recorded(fd, HOLE_TO) <= recorded(fd, HOLE_FROM)) record(fd, HOLE_FROM, before);
            record(fd, HOLE_TO, file.st_size);
            record(fd, SYNCED, file.st_size);
            return failed();
        }
    }
    int result = real(fd);
    if (!result) record(fd, SYNCED, file.st_size);
    return result;
}

int fsync(int fd) {
    REAL(fsync);
    return synced(fd, real);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    return synced(fd, real);
}

/* Pages that are written again are on disk after the next fsync. */
static void written(int fd, int64_t from, int64_t len) {
    int64_t hole_from = recorded(fd, HOLE_FROM), hole_to = recorded(fd, HOLE_TO);
    if (hole_from >= hole_to || from > hole_from || from + len <= hole_from) return;
    if (recorded(fd, SYNCED) > hole_from) record(fd, SYNCED, hole_from);
    record(fd, HOLE_FROM, from + len);
}

ssize_t write(int fd, const void *octets, size_t len) {
    REAL(write);
    if (!is_stored(fd)) return real(fd, octets, len);
    if (len > 1 && takes(WRITE_TEARS)) return real(fd, octets, len / 2), failed();
    ssize_t done = real(fd, octets, len);
    if (done > 0) written(fd, lseek(fd, 0, SEEK_CUR) - done, done);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (!is_stored(fd)) return real(fd, parts, count);
    if (takes(WRITE_TEARS)) return write(fd, parts[0].iov_base, parts[0].iov_len / 2), failed();
    ssize_t done = real(fd, parts, count);
    if (done > 0) written(fd, lseek(fd, 0, SEEK_CUR) - done, done);
    return done;
}

ssize_t pwrite64(int fd, const void *octets, size_t len, off64_t at) {
    REAL(pwrite64);
    ssize_t done = real(fd, octets, len, at);
    if (done > 0 && is_stored(fd)) written(fd, at, done);
    return done;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int result = real(clock, now);
    if (!result && clock == CLOCK_REALTIME && commands) now->tv_sec += commands->clock_offset;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    REAL(gettimeofday);
    int result = real(now, zone);
    if (!result && commands) now->tv_sec += commands->clock_offset;
    return result;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

#endif
