Feature: Memory
  A window has an end, and the page says what became of what no longer fits.

  Scenario: The context bar
    Given the page is open with the echo model
    When I say "Something to begin with"
    Then the context bar tells of pinned, recent, reserve and free tokens
    When I say "Something to fill it with"
    Then the context bar tells of more recent tokens than before

  Scenario: What was let go is told
    Given the page is open with the echo model and a window of 320 tokens
    When I talk until the window is full
    Then a receipt tells what was let go
    And the first thing that I said is still on the page

  Scenario: A window that stops
    Given the page is open with the echo model, a window of 320 tokens and the strategy stop
    When I talk until the window is full
    Then the page says in one sentence that the conversation does not fit
    And my last words are not lost
