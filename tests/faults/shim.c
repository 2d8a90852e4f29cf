/* Stands between a node and its files: records what it writes and syncs, and makes calls fail when told to.
 *
 * Built by shim.py and loaded with LD_PRELOAD; nothing of it is in the program.
 *
 *   FAULTS_ROOT      only files below this directory are looked at
 *   FAULTS_RECORDING where to append what happened, or unset
 *   FAULTS_CONTROL   a file of 4 numbers (int32) that the harness changes while the node runs:
 *                    [0] errno of fsync, [1] errno of writes, [2] errno of reads, [3] 1: syncs are lies
 *
 * A record: u8 operation, u8 result (0 done, 1 failed), u64 inode, u64 offset, u32 length, bytes. Operations:
 * W write (bytes: data), T truncate (offset: length), S sync, C create (bytes: path), O open (bytes: path),
 * R rename (bytes: old NUL new), U unlink (bytes: path), D sync of a directory (bytes: path).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST 65536
static char root[4096];
static size_t root_length;
static int recording = -1;
static volatile int32_t *control;
static unsigned char ours[MOST]; /* 1: a file below root, 2: a directory */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *place = getenv("FAULTS_ROOT");
    if (place == NULL || realpath(place, root) == NULL) return;
    root_length = strlen(root);
    const char *file = getenv("FAULTS_RECORDING");
    if (file != NULL) recording = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    file = getenv("FAULTS_CONTROL");
    if (file != NULL) {
        int fd = syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0);
        void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        if (page != MAP_FAILED) control = page;
        syscall(SYS_close, fd);
    }
}

static int told(int which) { return control != NULL ? control[which] : 0; }
static int is_ours(int fd) { return fd >= 0 && fd < MOST && ours[fd]; }

static void record(char operation, int failed, uint64_t inode, uint64_t offset, const void *data, uint32_t length) {
    if (recording < 0) return;
    unsigned char head[22];
    head[0] = operation;
    head[1] = failed != 0;
    memcpy(head + 2, &inode, 8);
    memcpy(head + 10, &offset, 8);
    memcpy(head + 18, &length, 4);
    struct iovec parts[2] = {{head, sizeof head}, {(void *)data, length}};
    syscall(SYS_writev, recording, parts, length ? 2 : 1);
}

static uint64_t inode_of(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 ? found.st_ino : 0;
}

static void opened(int fd, int existed) {
    char link[64], path[4096];
    if (fd < 0 || fd >= MOST) return;
    ours[fd] = 0;
    if (root_length == 0) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    if (strncmp(path, root, root_length) != 0 || (path[root_length] != '/' && path[root_length] != 0)) return;
    struct stat found;
    if (fstat(fd, &found) != 0) return;
    if (S_ISDIR(found.st_mode)) { ours[fd] = 2; return; }
    if (!S_ISREG(found.st_mode)) return;
    ours[fd] = 1;
    record(existed ? 'O' : 'C', 0, found.st_ino, 0, path, strlen(path));
}

static int open_any(int directory, const char *path, int flags, mode_t mode) {
    struct stat before;
    int existed = !(flags & O_CREAT) || fstatat(directory, path, &before, 0) == 0;
    pthread_mutex_lock(&turn);
    if (root_length && told(1) && (flags & (O_CREAT | O_TRUNC)) && strncmp(path, root, root_length) == 0) {
        pthread_mutex_unlock(&turn);
        errno = told(1);
        return -1;
    }
    int fd = syscall(SYS_openat, directory, path, flags, mode);
    int saved = errno;
    opened(fd, existed);
    if (is_ours(fd) && existed && (flags & O_TRUNC)) record('T', 0, inode_of(fd), 0, NULL, 0);
    pthread_mutex_unlock(&turn);
    errno = saved;
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); }
int open(const char *path, int flags, ...) { MODE(flags) return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_any(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return open_any(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return open_any(at, path, flags, mode); }

int close(int fd) {
    if (fd >= 0 && fd < MOST) ours[fd] = 0;
    return syscall(SYS_close, fd);
}

static ssize_t put(int fd, const void *data, size_t length, off_t offset, int at) {
    if (!is_ours(fd))
        return at ? syscall(SYS_pwrite64, fd, data, length, offset) : syscall(SYS_write, fd, data, length);
    if (told(1)) { errno = told(1); return -1; }
    pthread_mutex_lock(&turn);
    if (!at) offset = (fcntl(fd, F_GETFL) & O_APPEND) ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    ssize_t done = at ? syscall(SYS_pwrite64, fd, data, length, offset) : syscall(SYS_write, fd, data, length);
    int saved = errno;
    if (done > 0) record('W', 0, inode_of(fd), offset, data, done);
    pthread_mutex_unlock(&turn);
    errno = saved;
    return done;
}
ssize_t write(int fd, const void *data, size_t length) { return put(fd, data, length, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return put(fd, data, length, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return put(fd, data, length, offset, 1); }

ssize_t pread(int fd, void *data, size_t length, off_t offset) {
    if (is_ours(fd) && told(2)) { errno = told(2); return -1; }
    return syscall(SYS_pread64, fd, data, length, offset);
}
ssize_t pread64(int fd, void *data, size_t length, off_t offset) { return pread(fd, data, length, offset); }

int ftruncate(int fd, off_t length) {
    if (is_ours(fd) && told(1)) { errno = told(1); return -1; }
    pthread_mutex_lock(&turn);
    int done = syscall(SYS_ftruncate, fd, length);
    int saved = errno;
    if (done == 0 && is_ours(fd)) record('T', 0, inode_of(fd), length, NULL, 0);
    pthread_mutex_unlock(&turn);
    errno = saved;
    return done;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

static int sync_any(int fd, long call) {
    if (!is_ours(fd)) return syscall(call, fd);
    pthread_mutex_lock(&turn);
    if (told(3)) { pthread_mutex_unlock(&turn); return 0; }
    int error = told(0);
    int done = error ? -1 : syscall(call, fd);
    if (!error && done != 0) error = errno;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = ours[fd] == 2 ? readlink(link, path, sizeof path) : 0;
    record(ours[fd] == 2 ? 'D' : 'S', done != 0, inode_of(fd), 0, path, length > 0 ? length : 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}
int fsync(int fd) { return sync_any(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync); }

static int below(int at, const char *path, char *whole) {
    if (root_length == 0) return 0;
    if (path[0] == '/') snprintf(whole, 4096, "%s", path);
    else {
        char link[64], base[2048];
        ssize_t length = -1;
        if (at == AT_FDCWD) { if (getcwd(base, sizeof base)) length = strlen(base); }
        else { snprintf(link, sizeof link, "/proc/self/fd/%d", at); length = readlink(link, base, sizeof base - 1); }
        if (length < 0) return 0;
        base[length] = 0;
        snprintf(whole, 4096, "%s/%s", base, path);
    }
    return strncmp(whole, root, root_length) == 0;
}

static int rename_any(int from_at, const char *from, int to_at, const char *to) {
    char old[4096], new[4096], both[8200];
    int noted = below(from_at, from, old) && below(to_at, to, new);
    if (noted && told(1)) { errno = told(1); return -1; }
    pthread_mutex_lock(&turn);
    int done = syscall(SYS_renameat, from_at, from, to_at, to);
    int saved = errno;
    if (done == 0 && noted) {
        int length = snprintf(both, sizeof both, "%s", old) + 1;
        length += snprintf(both + length, sizeof both - length, "%s", new);
        record('R', 0, 0, 0, both, length);
    }
    pthread_mutex_unlock(&turn);
    errno = saved;
    return done;
}
int rename(const char *from, const char *to) { return rename_any(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int a, const char *from, int b, const char *to) { return rename_any(a, from, b, to); }

static int unlink_any(int at, const char *path, int flags) {
    char whole[4096];
    int noted = below(at, path, whole);
    if (noted && told(1)) { errno = told(1); return -1; }
    pthread_mutex_lock(&turn);
    int done = syscall(SYS_unlinkat, at, path, flags);
    int saved = errno;
    if (done == 0 && noted && !(flags & AT_REMOVEDIR)) record('U', 0, 0, 0, whole, strlen(whole));
    pthread_mutex_unlock(&turn);
    errno = saved;
    return done;
}
int unlink(const char *path) { return unlink_any(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return unlink_any(at, path, flags); }
