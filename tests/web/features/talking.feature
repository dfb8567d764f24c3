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
    When I say "Count for me, please"
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

  Scenario: A reload in mid-reply loses nothing
    Given the page is open with a model that counts slowly, on a server of its own
    When I say "Count while I reload"
    And the answer has reached "three"
    And I reload the page
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
