/*
 * load.c - an HTTP/1.1 load generator: each caller sends its next request when its last answer is complete.
 *
 *   gcc -O2 -o load load.c
 *   ./load -p PORT -b BODY_FILE -c CALLERS -n REQUESTS [-u PATH] [-H 'Name: value'] [-r EVERY] [-k NEEDLE]
 *          [-t SECONDS]
 *
 * With -r the first ######## in a header stands for a number that is one more after EVERY requests.
 * One thread, epoll, one kept-alive connection a caller, 127.0.0.1 only. An answer counts as an error if its status is
 * not 2xx or NEEDLE is not in the last 4 KB of its body. After SECONDS (default 60) it gives up. Prints one line of
 * JSON; exits 0 if every request was answered well, 3 if not. It ends when its parent does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_BUFFERED (1 << 18)
#define TAIL 4096
#define NUMBER "########"

/* What the next byte of an answer belongs to. */
typedef enum { IDLE, HEAD, BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER } State;

typedef struct {
    int fd;
    State state;
    int status;
    bool closes;
    long left; /* of the body or the chunk */
    int64_t sent_at;
    size_t length;
    char *buffer;
    size_t tail_length;
    char tail[TAIL];
} Caller;

static int port;
static long wanted, started, finished, errors;
static int64_t *latencies;
static const char *needle;
static char *request;
static char *number; /* in the request, where it counts requests; NULL if nowhere */
static long every;
static size_t request_length;
static int epoll;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void open_connection(Caller *caller) {
    int one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    caller->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(caller->fd, (struct sockaddr *)&address, sizeof address) != 0) {
        die("connect");
    }
    setsockopt(caller->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = caller};
    epoll_ctl(epoll, EPOLL_CTL_ADD, caller->fd, &event);
    caller->state = IDLE;
    caller->length = 0;
}

static void reopen_connection(Caller *caller) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, caller->fd, NULL);
    close(caller->fd);
    open_connection(caller);
}

static void send_request(Caller *caller) {
    caller->state = HEAD;
    caller->status = 0;
    caller->closes = false;
    caller->tail_length = 0;
    caller->sent_at = now_ns();
    if (number != NULL) {
        char digits[sizeof NUMBER];
        snprintf(digits, sizeof digits, "%08u", (unsigned)(started / every) % 100000000u);
        memcpy(number, digits, sizeof digits - 1);
    }
    started++;
    const char *from = request;
    size_t left = request_length;
    while (left > 0) {
        ssize_t written = write(caller->fd, from, left);
        if (written < 0 && errno != EINTR) {
            return; /* the reader notices that the connection is gone */
        }
        if (written > 0) {
            from += written;
            left -= (size_t)written;
        }
    }
}

static void finish(Caller *caller, bool complete) {
    bool good = complete && caller->status >= 200 && caller->status < 300;
    if (good && needle != NULL && memmem(caller->tail, caller->tail_length, needle, strlen(needle)) == NULL) {
        good = false;
    }
    if (!good && errors++ == 0) {
        fprintf(stderr, "first error: status %d, body %.*s\n", caller->status, (int)caller->tail_length, caller->tail);
    }
    latencies[finished++] = now_ns() - caller->sent_at;
    caller->state = IDLE;
    if (caller->closes || !complete) {
        reopen_connection(caller);
    }
    if (started < wanted) {
        send_request(caller);
    }
}

/* Keep the last TAIL bytes of the body. */
static void keep_tail(Caller *caller, const char *bytes, size_t length) {
    if (length > TAIL) {
        bytes += length - TAIL;
        length = TAIL;
    }
    if (caller->tail_length + length > TAIL) {
        size_t kept = TAIL - length;
        memmove(caller->tail, caller->tail + caller->tail_length - kept, kept);
        caller->tail_length = kept;
    }
    memcpy(caller->tail + caller->tail_length, bytes, length);
    caller->tail_length += length;
}

/* Read an answer's head; returns the bytes used, 0 if it is not whole yet. */
static size_t parse_head(Caller *caller) {
    char *end = memmem(caller->buffer, caller->length, "\r\n\r\n", 4);
    if (end == NULL) {
        return 0;
    }
    end[2] = '\0';
    caller->status = atoi(caller->buffer + 9);
    caller->closes = strcasestr(caller->buffer, "\r\nconnection: close") != NULL;
    const char *length_header = strcasestr(caller->buffer, "\r\ncontent-length:");
    if (strcasestr(caller->buffer, "\r\ntransfer-encoding: chunked") != NULL) {
        caller->state = CHUNK_SIZE;
    } else if (length_header != NULL) {
        caller->state = BODY;
        caller->left = atol(length_header + 17);
    } else {
        fprintf(stderr, "an answer without a length\n");
        exit(1);
    }
    return (size_t)(end + 4 - caller->buffer);
}

/* Use what the buffer holds of one answer. */
static void parse(Caller *caller) {
    char *at = caller->buffer;
    char *end = caller->buffer + caller->length;
    if (caller->state == HEAD) {
        at += parse_head(caller);
    }
    bool done = caller->state == BODY && caller->left == 0;
    bool more = caller->state != HEAD;
    while (more && !done && at < end) {
        if (caller->state == BODY || caller->state == CHUNK_DATA) {
            size_t part = end - at < caller->left ? (size_t)(end - at) : (size_t)caller->left;
            keep_tail(caller, at, part);
            at += part;
            caller->left -= (long)part;
            if (caller->left == 0) {
                done = caller->state == BODY;
                caller->state = CHUNK_END;
            }
            continue;
        }
        char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (line_end == NULL) {
            more = false;
        } else if (caller->state == CHUNK_SIZE) {
            caller->left = strtol(at, NULL, 16);
            caller->state = caller->left > 0 ? CHUNK_DATA : TRAILER;
        } else if (caller->state == CHUNK_END) {
            caller->state = CHUNK_SIZE;
        } else {
            done = line_end - at <= 1;
        }
        if (line_end != NULL) {
            at = line_end + 1;
        }
    }
    caller->length = (size_t)(end - at);
    memmove(caller->buffer, at, caller->length);
    if (done) {
        finish(caller, true);
    }
}

static void read_some(Caller *caller) {
    ssize_t got = read(caller->fd, caller->buffer + caller->length, MOST_BUFFERED - caller->length);
    if (got < 0 && errno == EINTR) {
        return;
    }
    if (got > 0) {
        caller->length += (size_t)got;
        if (caller->state == IDLE) {
            caller->length = 0;
        } else {
            parse(caller);
        }
    } else if (caller->state == IDLE) {
        reopen_connection(caller);
    } else {
        finish(caller, false);
    }
}

static void build_request(const char *path, const char *headers, const char *body_file) {
    char *body = NULL;
    size_t body_length = 0;
    FILE *file = fopen(body_file, "r");
    if (file == NULL) {
        die(body_file);
    }
    ssize_t got = getdelim(&body, &body_length, '\0', file);
    fclose(file);
    if (got < 0) {
        die(body_file);
    }
    int length = asprintf(&request,
                          "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                          "Accept: */*\r\n%sContent-Length: %zd\r\n\r\n%s",
                          path, port, headers, got, body);
    if (length < 0) {
        die("asprintf");
    }
    request_length = (size_t)length;
    if (every > 0) {
        number = memmem(request, request_length - (size_t)got, NUMBER, strlen(NUMBER));
        if (number == NULL) {
            fprintf(stderr, "no " NUMBER " in a header\n");
            exit(2);
        }
    }
    free(body);
}

static int compare(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left;
    int64_t b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static double percentile_ms(double fraction) {
    return finished ? (double)latencies[(long)(fraction * (double)(finished - 1) + 0.5)] / 1e6 : 0;
}

int main(int argc, char **argv) {
    const char *path = "/v1/chat/completions";
    const char *body_file = NULL;
    char headers[4096] = "";
    int callers_wanted = 1;
    double seconds = 60;
    int option;
    while ((option = getopt(argc, argv, "p:u:b:H:r:c:n:k:t:")) > 0) {
        switch (option) {
        case 'p':
            port = atoi(optarg);
            break;
        case 'u':
            path = optarg;
            break;
        case 'b':
            body_file = optarg;
            break;
        case 'H':
            if (strlen(headers) + strlen(optarg) + 3 > sizeof headers) {
                return 2;
            }
            strcat(strcat(headers, optarg), "\r\n");
            break;
        case 'r':
            every = atol(optarg);
            break;
        case 'c':
            callers_wanted = atoi(optarg);
            break;
        case 'n':
            wanted = atol(optarg);
            break;
        case 'k':
            needle = optarg;
            break;
        case 't':
            seconds = atof(optarg);
            break;
        default:
            return 2;
        }
    }
    if (port <= 0 || body_file == NULL || wanted <= 0 || callers_wanted <= 0) {
        fprintf(stderr, "usage: load -p PORT -b BODY_FILE -c CALLERS -n REQUESTS [-u PATH] [-H HEADER] [-r EVERY]"
                        " [-k NEEDLE] [-t SECONDS]\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    build_request(path, headers, body_file);

    epoll = epoll_create1(0);
    latencies = malloc((size_t)wanted * sizeof *latencies);
    Caller *callers = calloc((size_t)callers_wanted, sizeof *callers);
    for (int i = 0; i < callers_wanted; i++) {
        callers[i].buffer = malloc(MOST_BUFFERED);
        open_connection(&callers[i]);
    }
    int64_t began = now_ns();
    int64_t gives_up = began + (int64_t)(seconds * 1e9);
    for (int i = 0; i < callers_wanted && started < wanted; i++) {
        send_request(&callers[i]);
    }
    struct epoll_event ready[256];
    while (finished < wanted && now_ns() < gives_up) {
        int count = epoll_wait(epoll, ready, 256, 1000);
        for (int i = 0; i < count; i++) {
            read_some(ready[i].data.ptr);
        }
    }
    double elapsed = (double)(now_ns() - began) / 1e9;

    long missing = wanted - finished;
    qsort(latencies, (size_t)finished, sizeof *latencies, compare);
    printf("{\"requests\":%ld,\"errors\":%ld,\"seconds\":%.6f,\"rate\":%.1f,\"p50_ms\":%.4f,\"p99_ms\":%.4f}\n",
           finished, errors + missing, elapsed, (double)finished / elapsed, percentile_ms(0.5), percentile_ms(0.99));
    return errors + missing ? 3 : 0;
}
