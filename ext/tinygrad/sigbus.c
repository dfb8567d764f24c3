// What a process says before a page of a mapped file that can no longer be read ends it. Python's own handlers would be no good: they
// run after the instruction, which never succeeds.

struct facts {
  long (*write)(int fd, const void *bytes, unsigned long count);
  void *(*on_signal)(int number, void *action);
  const char *sentence;
  unsigned long length;
};

static struct facts *volatile known = (struct facts *)16;  // not 0: the loader has no memory for what is only zeros
static void speak(int number);

void *handler(struct facts *facts) {
  known = facts;
  return (void *)speak;
}

static void speak(int number) {
  known->write(2, known->sentence, known->length);
  known->on_signal(number, 0);  // the instruction is tried again, and the system does as it always does
}
