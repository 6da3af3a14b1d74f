/* The interface as this kernel sees it, and an address for it. */
#include "probe.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* A file of /sys/class/net/NAME without its newline; empty if it can't be read. */
static void read_sysfs(const char *name, const char *file, char *out, size_t room)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/class/net/%s/%s", name, file);
    FILE *stream = fopen(path, "re");
    if (!stream || !fgets(out, (int)room, stream))
        *out = 0;
    if (stream)
        fclose(stream);
    out[strcspn(out, "\n")] = 0;
}

static int count_entries(const char *name, const char *folder, const char *prefix)
{
    char path[128];
    int count = 0;
    snprintf(path, sizeof path, "/sys/class/net/%s/%s", name, folder);
    DIR *listing = opendir(path);
    if (!listing)
        return 0;
    for (struct dirent *entry; (entry = readdir(listing));)
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(listing);
    return count;
}

/* The driver that moves the packets: of a failover pair that is net_failover, which the device link
 * in sysfs does not tell. */
static void read_driver(int fd, const char *name, char *out, size_t room)
{
    struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
    struct ifreq ask = {.ifr_data = (char *)&info};
    snprintf(ask.ifr_name, sizeof ask.ifr_name, "%s", name);
    bool known = ioctl(fd, SIOCETHTOOL, &ask) == 0;
    snprintf(out, room, "%.*s", (int)sizeof info.driver, known ? info.driver : "");
}

/* The interface that was named, or the first one that is not the loopback. */
static bool find_interface(const struct request *request, struct reply *reply, char *name)
{
    const char *asked = text_or(request, "name", NULL);
    if (asked) {
        if (strlen(asked) >= IF_NAMESIZE || !if_nametoindex(asked))
            return fail(reply, "no interface %s", asked), false;
        strcpy(name, asked);
        return true;
    }
    struct if_nameindex *all = if_nameindex();
    unsigned best = 0;
    for (struct if_nameindex *one = all; one && one->if_index; one++) {
        if (strcmp(one->if_name, "lo") != 0 && (!best || one->if_index < best)) {
            best = one->if_index;
            snprintf(name, IF_NAMESIZE, "%s", one->if_name);
        }
    }
    if (all)
        if_freenameindex(all);
    if (!best)
        fail(reply, "there is no interface but the loopback");
    return best;
}

void net_show(const struct request *request, struct reply *reply)
{
    char name[IF_NAMESIZE], text[128];
    if (!find_interface(request, reply, name))
        return;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(reply, "socket: %s", strerror(errno));
    read_driver(fd, name, text, sizeof text);
    close(fd);
    put_text(reply, "name", name);
    put_text(reply, "driver", text);
    read_sysfs(name, "address", text, sizeof text);
    put_text(reply, "mac", text);
    read_sysfs(name, "mtu", text, sizeof text);
    put_integer(reply, "mtu", atoi(text));
    read_sysfs(name, "carrier", text, sizeof text);
    put_bool(reply, "carrier", strcmp(text, "1") == 0);
    read_sysfs(name, "device/features", text, sizeof text);
    put_text(reply, "features", text);
    put_integer(reply, "rx_queues", count_entries(name, "queues", "rx-"));
    put_integer(reply, "tx_queues", count_entries(name, "queues", "tx-"));
}

static bool set_address(int fd, const char *name, struct in_addr address, int prefix)
{
    struct ifreq ask = {0};
    struct sockaddr_in *value = (struct sockaddr_in *)&ask.ifr_addr;
    snprintf(ask.ifr_name, sizeof ask.ifr_name, "%s", name);
    value->sin_family = AF_INET;
    value->sin_addr = address;
    if (ioctl(fd, SIOCSIFADDR, &ask) != 0)
        return false;
    value->sin_addr.s_addr = htonl(prefix ? UINT32_MAX << (32 - prefix) : 0);
    if (ioctl(fd, SIOCSIFNETMASK, &ask) != 0 || ioctl(fd, SIOCGIFFLAGS, &ask) != 0)
        return false;
    ask.ifr_flags |= IFF_UP;
    return ioctl(fd, SIOCSIFFLAGS, &ask) == 0;
}

void net_address(const struct request *request, struct reply *reply)
{
    char name[IF_NAMESIZE];
    struct in_addr address;
    int64_t prefix = REQUIRED;
    if (!find_interface(request, reply, name) || !take_address(request, reply, "ip", &address) ||
        !take_integer(request, reply, "prefix", 0, 32, &prefix))
        return;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || !set_address(fd, name, address, (int)prefix))
        fail(reply, "address of %s: %s", name, strerror(errno));
    if (fd >= 0)
        close(fd);
    put_text(reply, "name", name);
}
