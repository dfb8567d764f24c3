// Inline PTX becomes calls of the functions in ptx_instructions.h: asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits)) reads
// ptx_cvt_f32_f16(x, bits). An instruction that has no function there is an error of the compiler's that names it.
#include "kernels.h"

enum { MAX_OPERANDS = 64 };
struct Span {
  const char* start;
  size_t size;
};

static const char* skip_space(const char* p) {
  while (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r') p++;
  return p;
}

// a keyword at `p`, and where it ends; null otherwise
static const char* behind_word(const char* p, const char* word) {
  const size_t n = strlen(word);
  return !strncmp(p, word, n) && !is_name(p[n]) ? p + n : nullptr;
}

// the string literals at *p, joined
static void read_strings(const char** p, Text* text) {
  for (*p = skip_space(*p); **p == '"'; *p = skip_space(*p + 1))
    for (++*p; **p && **p != '"'; ++*p) {
      if (**p != '\\') {
        text->add(*p, 1);
        continue;
      }
      ++*p;  // \n and \t separate, as spaces do
      text->add(**p == 'n' || **p == 't' ? " " : *p, 1);
    }
}

// "constraint"(expression), … behind colons; -> how many
static int read_operands(const char* p, const char* end, Span* operands) {
  int n = 0;
  while (p < end && n < MAX_OPERANDS) {
    if (*p == '(') {
      const char* after = behind_brackets(p);
      operands[n++] = {p, (size_t)(after - p)};
      p = after;
    } else if (*p == '"') {
      for (p++; *p && *p != '"'; p++) {}
      p++;
    } else
      p++;
  }
  return n;
}

// one instruction: a call of its function, with what is between commas, braces and brackets as its arguments
static void translate(const char* p, const char* end, const Span* operands, int n_operands, Text* out) {
  p = skip_space(p);
  if (p >= end) return;
  out->add("ptx_");
  for (; p < end && *p != ' '; p++) out->add(is_name(*p) ? p : "_", 1);
  out->add("(");
  bool first = true, open = false, address = false;
  for (; p < end; p++) {
    if (*p == ' ' || *p == '{' || *p == '}') continue;
    if (*p == '[' || *p == ']') {
      address = *p == '[';
      continue;
    }
    if (*p == ',') {
      open = false;
      continue;
    }
    if (!open) {
      if (!first) out->add(", ");
      first = false, open = true;
      if (address) out->add("(unsigned long)");
    }
    if (*p != '%') {
      out->add(p, 1);
      continue;
    }
    if (p[1] == '%') {  // a special register
      out->add("ptx_register_");
      p++;
      continue;
    }
    int number = 0;
    while (p[1] >= '0' && p[1] <= '9') number = 10 * number + *++p - '0';
    if (number < n_operands)
      out->add(operands[number].start, operands[number].size);
    else
      out->add("ptx_operand_without_value");
  }
  out->add("); ");
}

void translate_ptx(Text* text) {
  Text out = {};
  const char* copied = text->bytes;
  bool in_name = false;
  for (const char* p = text->bytes; *p;) {
    const char* after = in_name ? nullptr : behind_word(p, "asm");
    in_name = is_name(*p);
    if (*p == '"' || *p == '\'') {
      const char quote = *p;
      for (p++; *p && *p != quote; p++) p += *p == '\\';
      p += *p != 0;
      continue;
    }
    if (!after) {
      p++;
      continue;
    }
    const char* bracket = skip_space(after);
    for (const char* word = behind_word(bracket, "volatile"); word; word = nullptr) bracket = skip_space(word);
    if (*bracket != '(') {
      p = after;
      continue;
    }
    const char* end = behind_brackets(bracket);
    Text instructions = {};
    Span operands[MAX_OPERANDS];
    const char* rest = bracket + 1;
    read_strings(&rest, &instructions);
    const int n = read_operands(rest, end - 1, operands);
    out.add(copied, (size_t)(p - copied));
    out.add("do { ");
    for (const char* one = instructions.bytes; one && *one;) {
      const char* semicolon = strchr(one, ';');
      if (!semicolon) semicolon = one + strlen(one);
      translate(one, semicolon, operands, n, &out);
      one = *semicolon ? semicolon + 1 : semicolon;
    }
    out.add("} while (0)");
    for (; p < end; p++)
      if (*p == '\n') out.add("\n");  // so that lines keep their numbers
    instructions.release();
    copied = p = end;
  }
  out.add(copied);
  text->release();
  *text = out;
}
