/* Preloaded into a process: writes down, in order, every change to files below $FILE_LOG_DIR and every sync of them.
 *
 * One record: "W offset length path\n" and the bytes; "T size path\n" (truncated); "S path\n" (synced: all before it is
 * on the disk); "R from to\n" (renamed or linked); "D path\n" (deleted); "N text\n" (a note by the program itself).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int out = -1;

static int log_fd(void) {
    if (out < 0) {
        const char *path = getenv("FILE_LOG");
        out = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -2;
    }
    return out;
}

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_link)(const char *, const char *);
static int (*real_rename)(const char *, const char *);

__attribute__((constructor)) static void find_them(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_link = dlsym(RTLD_NEXT, "link");
    real_rename = dlsym(RTLD_NEXT, "rename");
}

static int watched(const char *path) {
    const char *below = getenv("FILE_LOG_DIR");
    return below && log_fd() >= 0 && !strncmp(path, below, strlen(below));
}

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, size - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return watched(path);
}

static void note(const void *bytes, size_t length, const char *format, ...) {
    char head[1200];
    va_list words;
    va_start(words, format);
    int n = vsnprintf(head, sizeof head, format, words);
    va_end(words);
    pthread_mutex_lock(&lock);
    real_write(log_fd(), head, (size_t)n);
    if (length) real_write(log_fd(), bytes, length);
    pthread_mutex_unlock(&lock);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) {
    char path[1024];
    ssize_t done = real_pwrite(fd, bytes, length, at);
    if (done > 0 && path_of(fd, path, sizeof path)) note(bytes, (size_t)done, "W %lld %lld %s\n", (long long)at, (long long)done, path);
    return done;
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return pwrite64(fd, bytes, length, at); }

ssize_t write(int fd, const void *bytes, size_t length) {
    char path[1024];
    off_t at = fd == out ? -1 : lseek(fd, 0, SEEK_CUR);
    ssize_t done = real_write(fd, bytes, length);
    if (done > 0 && at >= 0 && path_of(fd, path, sizeof path)) note(bytes, (size_t)done, "W %lld %lld %s\n", (long long)at, (long long)done, path);
    return done;
}

int ftruncate64(int fd, off_t size) {
    char path[1024];
    int done = real_ftruncate(fd, size);
    if (!done && path_of(fd, path, sizeof path)) note(0, 0, "T %lld %s\n", (long long)size, path);
    return done;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, int done) {
    char path[1024];
    if (!done && path_of(fd, path, sizeof path)) note(0, 0, "S %s\n", path);
    return done;
}
int fsync(int fd) { return synced(fd, real_fsync(fd)); }
int fdatasync(int fd) { return synced(fd, real_fdatasync(fd)); }

int unlink(const char *path) {
    int done = real_unlink(path);
    if (!done && watched(path)) note(0, 0, "D %s\n", path);
    return done;
}
int link(const char *from, const char *to) {
    int done = real_link(from, to);
    if (!done && watched(to)) note(0, 0, "R %s\t%s\n", from, to);
    return done;
}
int rename(const char *from, const char *to) {
    int done = real_rename(from, to);
    if (!done && watched(to)) note(0, 0, "R %s\t%s\nD %s\n", from, to, from);
    return done;
}
