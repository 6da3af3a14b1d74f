/* Reads one flat JSON object and writes one. What is nested, too long or no JSON is refused. */
#include "probe.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- reading ---------------------------------------------------------------------------------- */

static const char *skip_space(const char *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\r')
        at++;
    return at;
}

/* Four hex digits to a number, or -1. */
static int hex4(const char *at)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        if (!isxdigit((unsigned char)at[i]))
            return -1;
        int digit = at[i] <= '9' ? at[i] - '0' : (at[i] | 32) - 'a' + 10;
        value = value * 16 + digit;
    }
    return value;
}

/* After the opening quote; to after the closing one, or NULL. Names and addresses are ASCII, so a
 * \u escape beyond it is refused rather than decoded. */
static const char *read_text(const char *at, char *out, size_t room)
{
    size_t length = 0;
    for (; *at != '"'; at++) {
        char letter = *at;
        if ((unsigned char)letter < 0x20)
            return NULL;
        if (letter == '\\') {
            static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
            letter = *++at;
            const char *known = letter ? strchr(escapes, letter) : NULL;
            if (known) {
                letter = meant[known - escapes];
            } else if (letter == 'u') {
                int code = hex4(at + 1);
                if (code <= 0 || code > 0x7f)
                    return NULL;
                letter = (char)code;
                at += 4;
            } else {
                return NULL;
            }
        }
        if (length + 1 >= room)
            return NULL;
        out[length++] = letter;
    }
    out[length] = 0;
    return at + 1;
}

static const char *read_number(const char *at, struct field *field)
{
    const char *end = at;
    bool real = false;
    if (*end == '-')
        end++;
    if (!isdigit((unsigned char)*end))
        return NULL;
    for (; isdigit((unsigned char)*end) || (*end && strchr(".eE+-", *end)); end++)
        real |= !isdigit((unsigned char)*end);
    char *stop;
    errno = 0;
    field->real = strtod(at, &stop);
    if (stop != end || errno)
        return NULL;
    field->kind = real ? IS_REAL : IS_INTEGER;
    if (!real)
        field->integer = strtoll(at, NULL, 10);
    return errno ? NULL : end;
}

static const char *read_value(const char *at, struct field *field)
{
    static const struct { const char *word; int kind, value; } words[] = {
        {"true", IS_BOOL, 1}, {"false", IS_BOOL, 0}, {"null", IS_NULL, 0}};
    if (*at == '"') {
        field->kind = IS_TEXT;
        return read_text(at + 1, field->text, sizeof field->text);
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i].word);
        if (strncmp(at, words[i].word, length) == 0) {
            field->kind = words[i].kind;
            field->integer = words[i].value;
            return at + length;
        }
    }
    return read_number(at, field);
}

/* One `"key": value`, to what follows it, or NULL. */
static const char *read_field(const char *at, struct field *field)
{
    memset(field, 0, sizeof *field);
    if (*at != '"' || !(at = read_text(at + 1, field->key, sizeof field->key)))
        return NULL;
    at = skip_space(at);
    if (*at != ':' || !(at = read_value(skip_space(at + 1), field)))
        return NULL;
    return skip_space(at);
}

bool json_read(const char *line, struct request *request, const char **why)
{
    request->count = 0;
    const char *at = skip_space(line);
    *why = "not a JSON object";
    if (*at++ != '{')
        return false;
    at = skip_space(at);
    while (*at != '}') {
        *why = "too many fields";
        if (request->count == MAX_FIELDS)
            return false;
        *why = "a field is malformed, nested or too long";
        at = read_field(at, &request->fields[request->count]);
        if (!at || (*at != ',' && *at != '}'))
            return false;
        request->count++;
        if (*at == ',') {
            at = skip_space(at + 1);
            if (*at == '}')
                return false;
        }
    }
    *why = "something follows the object";
    return *skip_space(at + 1) == 0;
}

const struct field *json_find(const struct request *request, const char *key)
{
    for (int i = 0; i < request->count; i++)
        if (strcmp(request->fields[i].key, key) == 0)
            return &request->fields[i];
    return NULL;
}

bool take_integer(const struct request *request, struct reply *reply, const char *key, int64_t low,
                  int64_t high, int64_t *value)
{
    const struct field *field = json_find(request, key);
    if (field && field->kind == IS_INTEGER)
        *value = field->integer;
    else if (field || *value == REQUIRED)
        return fail(reply, "%s must be an integer", key), false;
    if (*value < low || *value > high)
        return fail(reply, "%s must be %lld to %lld", key, (long long)low, (long long)high), false;
    return true;
}

bool take_real(const struct request *request, struct reply *reply, const char *key, double low,
               double high, double *value)
{
    const struct field *field = json_find(request, key);
    if (!field || (field->kind != IS_INTEGER && field->kind != IS_REAL))
        return fail(reply, "%s must be a number", key), false;
    *value = field->real;
    if (!(*value >= low && *value <= high))
        return fail(reply, "%s must be %g to %g", key, low, high), false;
    return true;
}

bool take_address(const struct request *request, struct reply *reply, const char *key,
                  struct in_addr *value)
{
    if (inet_pton(AF_INET, text_or(request, key, ""), value) != 1)
        return fail(reply, "%s must be an IPv4 address", key), false;
    return true;
}

const char *text_or(const struct request *request, const char *key, const char *otherwise)
{
    const struct field *field = json_find(request, key);
    return field && field->kind == IS_TEXT ? field->text : otherwise;
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Room for `more` bytes and a zero. A probe without memory can't keep its promises: it ends. */
static char *grow(struct reply *reply, size_t more)
{
    if (reply->length + more + 1 > reply->room) {
        reply->room = (reply->length + more + 1) * 2;
        reply->data = realloc(reply->data, reply->room);
        if (!reply->data)
            abort();
    }
    return reply->data + reply->length;
}

static void append(struct reply *reply, const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    vsnprintf(grow(reply, (size_t)length), (size_t)length + 1, format, arguments);
    reply->length += (size_t)length;
}

void put_raw(struct reply *reply, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    append(reply, format, arguments);
    va_end(arguments);
}

void put_text(struct reply *reply, const char *key, const char *value)
{
    put_raw(reply, ",\"%s\":", key);
    put_string(reply, value);
}

void put_string(struct reply *reply, const char *value)
{
    put_raw(reply, "\"");
    for (; *value; value++) {
        unsigned char letter = (unsigned char)*value;
        if (letter == '"' || letter == '\\')
            put_raw(reply, "\\%c", letter);
        else if (letter < 0x20 || letter > 0x7e)
            put_raw(reply, "\\u%04x", letter);
        else
            put_raw(reply, "%c", letter);
    }
    put_raw(reply, "\"");
}

void put_integer(struct reply *reply, const char *key, int64_t value)
{
    put_raw(reply, ",\"%s\":%lld", key, (long long)value);
}

void put_real(struct reply *reply, const char *key, double value)
{
    put_raw(reply, ",\"%s\":%.3f", key, value);
}

void put_bool(struct reply *reply, const char *key, bool value)
{
    put_raw(reply, ",\"%s\":%s", key, value ? "true" : "false");
}

void put_base64(struct reply *reply, const char *key, const void *bytes, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = bytes;
    put_raw(reply, ",\"%s\":\"", key);
    char *out = grow(reply, (length + 2) / 3 * 4);
    for (size_t i = 0; i < length; i += 3) {
        uint32_t three = (uint32_t)in[i] << 16;
        three |= i + 1 < length ? (uint32_t)in[i + 1] << 8 : 0;
        three |= i + 2 < length ? in[i + 2] : 0;
        *out++ = digits[three >> 18];
        *out++ = digits[three >> 12 & 63];
        *out++ = i + 1 < length ? digits[three >> 6 & 63] : '=';
        *out++ = i + 2 < length ? digits[three & 63] : '=';
    }
    reply->length = (size_t)(out - reply->data);
    put_raw(reply, "\"");
}

static void begin(struct reply *reply, const int64_t *id, bool ok)
{
    reply->length = 0;
    reply->failed = !ok;
    put_raw(reply, "{\"id\":");
    if (id)
        put_raw(reply, "%lld", (long long)*id);
    else
        put_raw(reply, "null");
    put_bool(reply, "ok", ok);
}

void reply_begin(struct reply *reply, const int64_t *id)
{
    begin(reply, id, true);
}

/* Throws away what was put so far; the first failure of a command is the one that is told. */
void fail(struct reply *reply, const char *format, ...)
{
    if (reply->failed)
        return;
    char why[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    long long number = 0;
    int64_t id = 0;
    bool known = sscanf(reply->data, "{\"id\":%lld", &number) == 1;
    id = number;
    begin(reply, known ? &id : NULL, false);
    put_text(reply, "error", why);
}

void reply_end(struct reply *reply)
{
    put_raw(reply, "}\n");
}
