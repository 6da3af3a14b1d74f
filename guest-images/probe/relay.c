/* Standard input and output joined to a unix socket of this host, so that whoever starts programs
 * here can talk to what listens there: a QEMU's monitor. It ends when either side does. */
#include "probe.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int connected(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof at.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(at.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Some bytes from one side to the other; false: there are no more. */
static bool pass_on(int from, int to)
{
    char bytes[65536];
    ssize_t length = read(from, bytes, sizeof bytes);
    for (ssize_t done = 0, now; done < length; done += now)
        if ((now = write(to, bytes + done, (size_t)(length - done))) <= 0)
            return false;
    return length > 0 || (length < 0 && errno == EINTR);
}

int relay(const char *path)
{
    int fd = connected(path);
    if (fd < 0) {
        fprintf(stderr, "probe: connect to %s: %s\n", path, strerror(errno));
        return 1;
    }
    struct pollfd sides[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    bool open = true;
    while (open) {
        if (poll(sides, 2, -1) < 0)
            continue; /* a signal */
        if (sides[0].revents)
            open = pass_on(STDIN_FILENO, fd);
        if (open && sides[1].revents)
            open = pass_on(fd, STDOUT_FILENO);
    }
    close(fd);
    return 0;
}
