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

/* Of a failover pair that is net_failover's own name, which the device link in sysfs does not tell. */
void net_driver(const char *name, char driver[MAX_DRIVER])
{
    struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
    struct ifreq ask = {.ifr_data = (char *)&info};
    snprintf(ask.ifr_name, sizeof ask.ifr_name, "%s", name);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool known = fd >= 0 && ioctl(fd, SIOCETHTOOL, &ask) == 0;
    snprintf(driver, MAX_DRIVER, "%.*s", MAX_DRIVER - 1, known ? info.driver : "");
    if (fd >= 0)
        close(fd);
}

static bool has_master(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/class/net/%s/master", name);
    return access(path, F_OK) == 0;
}

bool net_choose(const struct request *request, struct reply *reply, char *name)
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
        if (strcmp(one->if_name, "lo") == 0 || has_master(one->if_name))
            continue;
        if (!best || one->if_index < best) {
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
    if (!net_choose(request, reply, name))
        return;
    net_driver(name, text);
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
    if (!net_choose(request, reply, name) || !take_address(request, reply, "ip", &address) ||
        !take_integer(request, reply, "prefix", 0, 32, &prefix))
        return;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || !set_address(fd, name, address, (int)prefix))
        fail(reply, "address of %s: %s", name, strerror(errno));
    if (fd >= 0)
        close(fd);
    put_text(reply, "name", name);
}
