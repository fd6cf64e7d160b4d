/*
 * The one program of a lab guest: process 1 of an initramfs that holds nothing else but kernel modules.
 *
 * It loads the virtio drivers, then follows a schedule of phases: CPU demand, working set and dirty rate. Once a second it
 * prints a heartbeat on the serial console (and writes it to the first sector of /dev/vda, if there is one):
 *
 *   LAB boot=<boot id> count=<n> work_ms=<n> late_ms=<n> dirtied_kib=<n> resident_kib=<n> phase=<n> load=<phase> disk=<none|ok|error>
 *
 * count grows by one a beat and boot stays, for as long as the guest lives, so a migration that restarts or rolls back the guest shows.
 * work_ms is CPU demand served, late_ms demand not served yet: a starved guest works at full speed until it has caught up, as a
 * real service with a queue does (at most a second of demand is remembered).
 *
 * A schedule is text: [repeat;]<seconds>:<cpu %>:<working set MiB>:<dirty MiB/s>:<order>[,...]. The order is
 *   s  sequential          r  random
 *   h  nine writes of ten go to a tenth of the working set, at random
 *   u  sequential, and every write puts the value that was there
 *   l  only reads, sequentially
 *   g  a heap that grows by the dirty rate up to the working set, is then given back whole, and grows anew
 *   c  files written to the page cache, the oldest deleted when they hold more than the working set
 * It comes as lab.load= of the kernel command line, later through the virtio port "lab.load": "load <id> <schedule>\n", answered
 * by "ok <id>\n" or "bad <id>\n". "progress <id>\n" is answered by "<slices>:<dirtied KiB>:<work ms> <id>\n": slices are turns of
 * the main loop, twenty a second where nothing holds the guest up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define SECTOR 512
#define MAX_PHASES 4096
#define MESSAGE_BYTES 262144
#define SLICE_SECONDS 0.05
#define BACKLOG_SECONDS 1.0
#define CHURN_DIR "/churn"
#define CHURN_PAGES 256UL /* a file */

struct phase {
    double seconds, cpu_percent, working_set_mib, dirty_mib_per_second;
    char order;
};

struct schedule {
    struct phase phases[MAX_PHASES];
    int count, repeat, current;
    double ends_at;
};

static struct schedule schedule;
static char boot_id[64];
static volatile uint64_t sink;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static size_t read_file(const char *path, char *buffer, size_t size) {
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? 0 : read(fd, buffer, size - 1);
    if (fd >= 0) close(fd);
    buffer[got > 0 ? got : 0] = 0;
    buffer[strcspn(buffer, "\n")] = 0;
    return got > 0 ? (size_t)got : 0;
}

/* ---- schedule ---- */

static int parse_schedule(const char *text, struct schedule *out) {
    out->count = out->current = 0;
    out->repeat = strncmp(text, "repeat;", 7) == 0;
    if (out->repeat) text += 7;
    while (out->count < MAX_PHASES) {
        struct phase *p = &out->phases[out->count];
        int used = 0;
        if (sscanf(text, "%lf:%lf:%lf:%lf:%c%n", &p->seconds, &p->cpu_percent, &p->working_set_mib, &p->dirty_mib_per_second,
                   &p->order, &used) != 5 || p->seconds <= 0 || !strchr("srhulgc", p->order))
            return -1;
        out->count++;
        text += used;
        if (!*text) return 0;
        if (*text++ != ',') return -1;
    }
    return -1;
}

static void start_schedule(const struct schedule *next) {
    schedule = *next;
    schedule.ends_at = now() + schedule.phases[0].seconds;
}

/* The last phase of a schedule that does not repeat holds for ever. */
static struct phase *current_phase(double at) {
    while (at >= schedule.ends_at && (schedule.repeat || schedule.current + 1 < schedule.count)) {
        schedule.current = (schedule.current + 1) % schedule.count;
        schedule.ends_at += schedule.phases[schedule.current].seconds;
    }
    return &schedule.phases[schedule.current];
}

/* ---- memory ---- */

static uint8_t *memory;
static size_t memory_pages, resident_pages, cursor;
static uint64_t stamp, dirtied_pages, random_state = 88172645463325252ULL;

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

/* Content that was never there before: page sampling compares hashes and would miss a repeated value. */
static void dirty_page(size_t page) {
    uint64_t *words = (uint64_t *)(memory + page * PAGE);
    words[0] = ++stamp * 0x9E3779B97F4A7C15ULL;
    words[(stamp % 511) + 1] ^= stamp;
}

static void resize_working_set(double mib) {
    size_t want = (size_t)(mib * 256);
    if (want > memory_pages) want = memory_pages;
    if (want < resident_pages) madvise(memory + want * PAGE, (resident_pages - want) * PAGE, MADV_DONTNEED);
    for (size_t end = want < resident_pages + 1024 ? want : resident_pages + 1024; resident_pages < end; resident_pages++)
        dirty_page(resident_pages); /* 4 MiB a slice at most, so that growing does not hold up the heartbeat */
    resident_pages = want < resident_pages ? want : resident_pages;
}

/* ---- orders ---- */

static size_t next_page(char order) {
    if (order == 'r') return next_random() % resident_pages;
    if (order == 'h') {
        size_t hot = resident_pages / 10 + 1;
        return next_random() % 10 ? next_random() % hot : next_random() % resident_pages;
    }
    return cursor++;
}

static void touch_page(char order) {
    if (cursor >= resident_pages) cursor = 0;
    size_t page = next_page(order);
    volatile uint64_t *words = (volatile uint64_t *)(memory + page * PAGE);
    if (order == 'u')
        words[0] = words[0];
    else if (order == 'l')
        for (size_t i = 0; i < PAGE / 8; i += 8) sink += words[i];
    else
        dirty_page(page);
}

static void grow_heap(size_t most_pages) {
    if (resident_pages >= most_pages) {
        madvise(memory, resident_pages * PAGE, MADV_DONTNEED);
        resident_pages = 0;
    }
    dirty_page(resident_pages++);
}

static size_t churn_first, churn_next, churn_held, churn_filled;
static int churn_file = -1;

static void churn_name(char *path, size_t size, size_t number) { snprintf(path, size, CHURN_DIR "/%zu", number); }

static void drop_files(size_t most_pages) {
    char path[64];
    while (churn_held > most_pages && churn_first < churn_next) {
        churn_name(path, sizeof path, churn_first++);
        unlink(path);
        churn_held = churn_held > CHURN_PAGES ? churn_held - CHURN_PAGES : 0;
    }
}

static void churn_page(size_t most_pages) {
    static char block[PAGE];
    char path[64];
    if (churn_file < 0) {
        churn_name(path, sizeof path, churn_next++);
        churn_file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        churn_filled = 0;
    }
    memcpy(block, &(uint64_t){++stamp * 0x9E3779B97F4A7C15ULL}, 8);
    if (churn_file < 0 || write(churn_file, block, PAGE) != (ssize_t)PAGE) return;
    churn_held++;
    if (++churn_filled == CHURN_PAGES) {
        close(churn_file);
        churn_file = -1;
        drop_files(most_pages);
    }
}

/* What a new phase's order does not use is given back first. */
static void resize_for(const struct phase *p) {
    size_t want = (size_t)(p->working_set_mib * 256);
    if (p->order != 'c' && churn_next > churn_first) {
        if (churn_file >= 0) close(churn_file);
        churn_file = -1;
        churn_held = (churn_next - churn_first) * CHURN_PAGES;
        drop_files(0);
        churn_held = 0;
    }
    if (p->order == 'c')
        resize_working_set(0);
    else if (p->order != 'g' || resident_pages > want)
        resize_working_set(p->working_set_mib);
}

static double dirty(double pages, const struct phase *p, double until) {
    size_t most = (size_t)(p->working_set_mib * 256);
    while (pages >= 1 && most && (resident_pages || p->order == 'g' || p->order == 'c')) {
        for (int i = 0; i < 64 && pages >= 1; i++, pages--, dirtied_pages++) {
            if (p->order == 'g')
                grow_heap(most);
            else if (p->order == 'c')
                churn_page(most);
            else
                touch_page(p->order);
        }
        if (now() >= until) break;
    }
    return pages;
}

/* ---- CPU ---- */

static uint64_t chunk_rounds = 2000;
static double chunk_seconds;

static double run_chunk(void) {
    double start = now();
    uint64_t x = sink | 1;
    for (uint64_t i = 0; i < chunk_rounds; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    sink = x;
    return now() - start;
}

/* The fastest of many short runs is the undisturbed speed, even on a host that gives this guest little time. */
static void calibrate(void) {
    for (;;) {
        chunk_seconds = 1;
        for (int i = 0; i < 20; i++) {
            double took = run_chunk();
            if (took < chunk_seconds) chunk_seconds = took;
        }
        if (chunk_seconds > 4e-4 || chunk_rounds > (1ULL << 32)) return;
        chunk_rounds *= 2;
    }
}

static double burn(double owed, double until) {
    while (owed > 0 && now() < until) {
        double took = run_chunk();
        owed -= chunk_seconds;
        if (took > 0 && took < chunk_seconds) chunk_seconds += 0.05 * (took - chunk_seconds);
    }
    return owed;
}

/* ---- devices ---- */

static void load_modules(void) {
    char names[4096], *next = names, path[128];
    int fd = open("/modules/order", O_RDONLY);
    ssize_t got = fd < 0 ? 0 : read(fd, names, sizeof names - 1);
    if (fd >= 0) close(fd);
    names[got > 0 ? got : 0] = 0;
    for (char *name; (name = strsep(&next, "\n")) && *name;) {
        snprintf(path, sizeof path, "/modules/%s", name);
        int module = open(path, O_RDONLY);
        if (module < 0 || (syscall(SYS_finit_module, module, "", 0) && errno != EEXIST)) printf("LAB module %s: %s\n", name, strerror(errno));
        if (module >= 0) close(module);
    }
}

static int open_port(void) {
    char path[64], name[64];
    for (int device = 0; device < 4; device++)
        for (int port = 0; port < 8; port++) {
            snprintf(path, sizeof path, "/sys/class/virtio-ports/vport%dp%d/name", device, port);
            if (!read_file(path, name, sizeof name) || strcmp(name, "lab.load")) continue;
            snprintf(path, sizeof path, "/dev/vport%dp%d", device, port);
            return open(path, O_RDWR | O_NONBLOCK);
        }
    return -1;
}

static uint64_t slices;
static double work;

static void take_message(int port, char *line) {
    static struct schedule next;
    char id[32], reply[128];
    int used = 0;
    if (sscanf(line, "progress %31s", id) == 1) {
        snprintf(reply, sizeof reply, "%llu:%llu:%.0f %s\n", (unsigned long long)slices, (unsigned long long)dirtied_pages * 4,
                 work * 1e3, id);
        if (write(port, reply, strlen(reply)) < 0) printf("LAB port: %s\n", strerror(errno));
        return;
    }
    if (sscanf(line, "load %31s %n", id, &used) != 1 || !used) return;
    int bad = parse_schedule(line + used, &next);
    if (!bad) start_schedule(&next);
    snprintf(reply, sizeof reply, "%s %s\n", bad ? "bad" : "ok", id);
    if (write(port, reply, strlen(reply)) < 0) printf("LAB port: %s\n", strerror(errno));
}

/* A message cut by a migration is dropped when the next one starts: the sender begins each with a newline. */
static void poll_port(int port) {
    static char message[MESSAGE_BYTES];
    static size_t held;
    ssize_t got;
    while (port >= 0 && (got = read(port, message + held, sizeof message - 1 - held)) > 0) {
        held += got;
        message[held] = 0;
        for (char *end; (end = memchr(message, '\n', held));) {
            *end = 0;
            take_message(port, message);
            held -= end + 1 - message;
            memmove(message, end + 1, held + 1);
        }
        if (held == sizeof message - 1) held = 0;
    }
}

static const char *write_disk(const char *text) {
    static int disk = -2;
    static char sector[SECTOR] __attribute__((aligned(4096)));
    if (disk == -2) disk = open("/dev/vda", O_WRONLY | O_DIRECT | O_SYNC);
    if (disk < 0) return "none";
    memset(sector, 0, sizeof sector);
    snprintf(sector, sizeof sector, "%s\n", text);
    return pwrite(disk, sector, SECTOR, 0) == SECTOR ? "ok" : "error";
}

/* ---- main ---- */

static void heartbeat(uint64_t count, double late) {
    struct phase *p = &schedule.phases[schedule.current];
    char text[400];
    snprintf(text, sizeof text, "LAB boot=%s count=%llu work_ms=%.0f late_ms=%.0f dirtied_kib=%llu resident_kib=%llu phase=%d load=%g:%g:%g:%g:%c",
             boot_id, (unsigned long long)count, work * 1e3, late > 0 ? late * 1e3 : 0, (unsigned long long)dirtied_pages * 4,
             (unsigned long long)resident_pages * 4, schedule.current, p->seconds, p->cpu_percent, p->working_set_mib,
             p->dirty_mib_per_second, p->order);
    const char *disk = write_disk(text);
    printf("%s disk=%s\n", text, disk);
}

static void follow_schedule(int port) {
    double last = now(), next_beat = last, owed_cpu = 0, owed_pages = 0;
    for (uint64_t count = 0;; slices++) {
        double start = now(), elapsed = start - last, until = start + SLICE_SECONDS;
        struct phase *p = current_phase(start);
        double cpu_per_second = p->cpu_percent / 100, pages_per_second = p->dirty_mib_per_second * 256;
        last = start;
        if (start >= next_beat) {
            heartbeat(count++, owed_cpu);
            next_beat = start > next_beat + 1 ? start + 1 : next_beat + 1;
        }
        poll_port(port);
        resize_for(p);
        owed_cpu += cpu_per_second * elapsed;
        owed_pages += pages_per_second * elapsed;
        if (owed_cpu > cpu_per_second * BACKLOG_SECONDS) owed_cpu = cpu_per_second * BACKLOG_SECONDS;
        if (owed_pages > pages_per_second * BACKLOG_SECONDS) owed_pages = pages_per_second * BACKLOG_SECONDS;
        double before = owed_cpu, dirtying = now();
        owed_pages = dirty(owed_pages, p, until);
        owed_cpu = burn(owed_cpu - (now() - dirtying), until);
        if (owed_cpu < -SLICE_SECONDS) owed_cpu = -SLICE_SECONDS; /* dirtying that needs more than the demand is not held against later */
        if (before > owed_cpu) work += before - owed_cpu;
        double rest = until - now();
        if (rest > 0) {
            struct timespec pause = {0, (long)(rest * 1e9)};
            nanosleep(&pause, NULL);
        }
    }
}

static void set_up_guest(char *command_line, size_t size) {
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    int console = open("/dev/console", O_RDWR);
    for (int fd = 0; fd < 3 && console >= 0; fd++) dup2(console, fd);
    setvbuf(stdout, NULL, _IOLBF, 1024);
    read_file("/proc/cmdline", command_line, size);
    read_file("/proc/sys/kernel/random/boot_id", boot_id, sizeof boot_id);
}

/*
 * QEMU before 9.0 forgets, in software emulation, to take its translations' right to write without a word when it reads the
 * dirty bits of a migration (cpu_physical_memory_sync_dirty_bitmap; mended in March 2024 by "physmem: Fix TCG dirty bits").
 * What is written through such a translation is then never sent, and the guest's kernel crashes on the destination. Entering
 * and leaving the kernel drops all translations under page table isolation (pti=on), so with lab.flush=<ms> on the command line
 * that is done so often. It costs a tenth of a CPU at 3 ms.
 */
static long flush_ms;

static void *drop_translations(void *unused) {
    for (;;) {
        struct timespec pause = {flush_ms / 1000, flush_ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    return unused;
}

int main(void) {
    static char command_line[4096];
    static struct schedule first;
    set_up_guest(command_line, sizeof command_line);
    if (strstr(command_line, "lab.probe")) { /* asked only whether a guest runs here at all */
        printf("LAB probe boot=%s\n", boot_id);
        sync();
        reboot(RB_AUTOBOOT);
    }
    load_modules();
    mkdir(CHURN_DIR, 0700);
    if (mount("ramfs", CHURN_DIR, "ramfs", 0, NULL)) printf("LAB ramfs: %s\n", strerror(errno));
    calibrate();
    char *load = strstr(command_line, "lab.load=");
    if (load) {
        load += strlen("lab.load=");
        load[strcspn(load, " ")] = 0;
    }
    if (parse_schedule(load ? load : "1:0:0:0:s", &first)) {
        printf("LAB schedule not understood: %s\n", load);
        parse_schedule("1:0:0:0:s", &first);
    }
    start_schedule(&first);
    memory_pages = (size_t)sysconf(_SC_PHYS_PAGES);
    memory = mmap(NULL, memory_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) memory_pages = 0;
    pthread_t thread;
    char *flush = strstr(command_line, "lab.flush=");
    if (flush) flush_ms = strtol(flush + strlen("lab.flush="), NULL, 10);
    if (flush_ms > 0 && pthread_create(&thread, NULL, drop_translations, NULL)) printf("LAB thread: %s\n", strerror(errno));
    follow_schedule(open_port());
}
