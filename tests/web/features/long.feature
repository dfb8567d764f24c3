Feature: Long conversations and fast replies
  A chat of thousands of messages opens at its end, and a reply that comes quickly is in nobody's way.

  Scenario: Two thousand messages
    Given the page is open with a chat of 2000 messages
    Then the newest message is in view
    And fewer than 200 messages are in the document
    When I scroll to the beginning
    Then I see the message "number 1 of 2000"
    And fewer than 200 messages are in the document
    When I press "To the newest message"
    Then the newest message is in view

  Scenario: Reading on while a reply grows
    Given the page is open with a model that writes quickly
    When I say "Write a lot"
    And the answer has reached "paragraph"
    And I scroll up while it grows
    Then what I read stays where it is
    And I can type meanwhile
    And what was rendered once is not rendered again
