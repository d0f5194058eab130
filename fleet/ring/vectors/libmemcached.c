// SPDX-License-Identifier: MIT
// Prints "key server" for each key as libmemcached maps it.
// cc -o vectors libmemcached.c -lmemcached
// vectors modula|ketama|weighted HASH HOST:PORT[:WEIGHT]... < keys
#include <libmemcached/memcached.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
  memcached_st *m = memcached_create(NULL);
  int weighted = !strcmp(argv[1], "weighted");
  if (!strcmp(argv[1], "modula"))
    memcached_behavior_set(m, MEMCACHED_BEHAVIOR_DISTRIBUTION, MEMCACHED_DISTRIBUTION_MODULA);
  else if (weighted)
    memcached_behavior_set(m, MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED, 1);
  else
    memcached_behavior_set(m, MEMCACHED_BEHAVIOR_KETAMA, 1);
  if (atoi(argv[2]) >= 0) memcached_behavior_set(m, MEMCACHED_BEHAVIOR_HASH, atoi(argv[2]));
  for (int i = 3; i < argc; i++) {
    char *host = strtok(argv[i], ":"), *port = strtok(NULL, ":"), *weight = strtok(NULL, ":");
    memcached_server_add_with_weight(m, host, atoi(port), weight ? atoi(weight) : 1);
  }
  char key[512];
  memcached_return_t rc;
  while (scanf("%500s", key) == 1) {
    const memcached_instance_st *s = memcached_server_by_key(m, key, strlen(key), &rc);
    printf("%s %s:%d\n", key, memcached_server_name(s), memcached_server_port(s));
  }
}
