/*
 * A program that unloads the library while threads of a pool may be in it: unload LIBRARY MODEL. They must not wake up in memory
 * that is gone.
 */
#define _POSIX_C_SOURCE 200809L
#include "leanresnet.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(condition)                                                     \
  do {                                                                       \
    if (!(condition)) {                                                      \
      fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #condition);    \
      exit(1);                                                               \
    }                                                                        \
  } while (0)

/* Finds a function. Its address is copied: ISO C converts no pointer to an object into one to a function. */
#define FIND(function)                                              \
  do {                                                              \
    void *address = dlsym(library, "leanresnet_" #function);        \
    CHECK(address != NULL);                                         \
    memcpy(&(function), &address, sizeof address);                  \
  } while (0)

static leanresnet_status (*model_load)(const char *, leanresnet_model **, leanresnet_error *);
static void (*model_free)(leanresnet_model *);
static leanresnet_status (*session_create)(const leanresnet_model *, const leanresnet_session_options *,
                                                       leanresnet_session **, leanresnet_error *);
static void (*session_free)(leanresnet_session *);

/* All use of the library, on a thread that ends: what glibc keeps of a library for its threads is no reason to keep it then. */
static void *use(void *path) {
  leanresnet_error error;
  leanresnet_model *model;
  leanresnet_session *session;
  leanresnet_session_options options = LEANRESNET_SESSION_OPTIONS_INIT;
  options.threads = 4;
  CHECK(model_load(path, &model, &error) == LEANRESNET_STATUS_OK);
  CHECK(session_create(model, &options, &session, &error) == LEANRESNET_STATUS_OK);
  model_free(model);
  /* The release asks the threads of the pool to end, and does not wait. */
  session_free(session);
  return NULL;
}

int main(int argument_count, char **arguments) {
  CHECK(argument_count == 3);
  void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  CHECK(library != NULL);
  FIND(model_load);
  FIND(model_free);
  FIND(session_create);
  FIND(session_free);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, use, arguments[2]) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(dlclose(library) == 0);
  nanosleep(&(struct timespec){0, 200000000}, NULL);
  /* Now that all threads have ended, nothing but the library's own wish keeps it. */
  library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  CHECK(library != NULL && dlclose(library) == 0);
  CHECK(dlopen(arguments[1], RTLD_NOW | RTLD_NOLOAD) != NULL);
  puts("still there");
  return 0;
}
