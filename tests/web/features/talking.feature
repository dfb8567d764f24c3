Feature: Talking
  People write, a character answers while they watch, and what was said can be taken back.

  Scenario: The first message
    Given the page is open with the echo model
    Then Stacy greets me
    When I say "How far is the moon?"
    Then the conversation reads "How far is the moon?" and then "How far is the moon?"
    And the message box is empty and ready

  Scenario: An answer is seen to grow
    Given the page is open with a model that counts slowly
    When I say "Count for me, please" and watch the conversation
    Then I see the answer grow word by word
    And I can stop it

  Scenario: Stop keeps what was said and frees the server
    Given the page is open with a model that counts slowly, on a server of its own
    When I say "Count until I stop you"
    And the answer has reached "five"
    And I press "Stop"
    Then nothing runs on the server any more
    And the message box is empty and ready
    And the answer stays as it was

  Scenario: One button sends, and stops what it asked for
    Given the page is open with a model that counts slowly, on a server of its own
    When I say "Count until somebody stops you"
    Then "Stop" stands where "Send" stood
    And I am told that Stacy is writing
    When I write "And now backwards" and press Enter
    Then the message box still holds "And now backwards"
    And the page complains of nothing
    When I go to "Stop" with the keyboard
    And the answer is stopped in another tab
    Then "Send" stands where "Stop" stood
    And the focus is on "Send"
    And the message box still holds "And now backwards"

  Scenario: A growing answer has a cursor at its end
    Given the page is open with a model that counts slowly
    When I say "Count and show me where you are"
    And the answer has reached "two"
    Then a still mark that is no text stands at its end
    When I press "Stop"
    Then nothing stands at its end

  Scenario: Pressing twice asks once
    Given the page is open with a model that counts slowly
    When I write "Asked with a trembling finger" and press Enter twice
    And the answer has reached "three"
    Then the list of chats has "Asked with a trembling finger"
    And the page complains of nothing
    When I press "Stop"
    Then I have asked 1 thing

  Scenario: Who writes on while a message is on its way loses nothing
    Given the page is open with the echo model
    When the server takes a second for everything
    And I write "First things first" and press Enter
    And I go on with "and then the next"
    Then the conversation reads "First things first" and then "First things first"
    And the message box still holds "and then the next"
    When I press "New chat" and go on with "Something else"
    Then the conversation does not show "First things first"
    And the message box still holds "Something else"

  Scenario: Leaving a chat in mid-reply
    Given the page is open with a model that counts slowly, on a server of its own
    When I say "Count while I am elsewhere"
    And the answer has reached "two"
    And I leave it for a new chat
    Then Stacy greets me, and it stays at that while the answer grows

  Scenario: A reload in mid-reply loses nothing
    Given the page is open with a model that counts slowly, on a server of its own
    When I say "Count while I reload"
    And the answer has reached "three"
    And I reload the page and watch the conversation
    Then I see the answer grow word by word
    And I can stop it
    And nothing runs on the server any more

  Scenario: Retry asks again
    Given the page is open with a model that says "Heads it is" and "Tails it is" in turn
    When I say "Toss a coin"
    Then the conversation reads "Toss a coin" and then "Heads it is"
    When I press "Retry"
    Then the conversation reads "Toss a coin" and then "Tails it is"
    And the conversation does not show "Heads it is"

  Scenario: Undo takes the last exchange back
    Given the page is open with the echo model
    When I say "The first thing"
    And I say "The second thing"
    And I press "Undo"
    Then the conversation shows "The first thing"
    And the conversation does not show "The second thing"

  Scenario: Edit changes what was said and asks again
    Given the page is open with a model that says "Oslo" and "Rome" in turn
    When I say "The capital of Norway?"
    Then the conversation reads "Norway" and then "Oslo"
    When I change my words to "The capital of Italy?"
    Then the conversation reads "Italy" and then "Rome"
    And the conversation does not show "Norway"

  Scenario: Several lines
    Given the page is open with the echo model
    When I write "one line" and, after Shift+Enter, "another line"
    And I press Enter
    Then the conversation reads "another line" and then "another line"

  Scenario: An empty message is not sent
    Given the page is open with the echo model
    When I press Enter in the empty message box
    And I say "Here I am"
    Then the conversation reads "Here I am" and then "Here I am"
    And I have said 1 thing
