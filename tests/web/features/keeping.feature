Feature: Keeping
  Nothing that was said is lost, and what is deleted is gone.

  Scenario: Reload keeps the log
    Given the page is open with the echo model
    When I say "Remember the lighthouse"
    And I reload the page
    Then the conversation reads "Remember the lighthouse" and then "Remember the lighthouse"
    When I say "And the harbour"
    Then the conversation reads "lighthouse" and then "And the harbour"

  Scenario: A reload while a message is on its way
    Given the page is open with the echo model
    When I say "Before"
    And the server takes a second for everything
    And I write "Halfway there" and press Enter
    And the page is loaded again before that is sent
    Then the conversation reads "Halfway there" and then "Halfway there"
    And "Halfway there" was said once

  Scenario: A reload while the first message is on its way
    Given the page is open with the echo model
    When the server takes a second for everything
    And I write "Hardly begun" and press Enter
    And the page is loaded again before that is sent
    Then the message box still holds "Hardly begun"

  Scenario: Two tabs on one chat
    Given the page is open with the echo model
    When I say "Said in the first tab"
    And I open the same chat in a second tab
    Then the conversation reads "Said in the first tab" and then "Said in the first tab"
    When I say "Said in the second tab"
    Then the conversation reads "Said in the second tab" and then "Said in the second tab"
    When I go back to the first tab
    Then the conversation reads "Said in the second tab" and then "Said in the second tab"
    When I say "Said in the first tab again"
    Then the conversation reads "Said in the first tab again" and then "Said in the first tab again"
    And nothing that was said in either tab is lost

  Scenario: Opening an older chat
    Given the page is open with the echo model
    When I say "This one is about apples"
    And I press "New chat"
    Then the conversation does not show "about apples"
    When I say "This one is about pears"
    Then the list of chats has "about pears"
    When I open the chat "about apples"
    Then the conversation shows "This one is about apples"
    And the conversation does not show "about pears"
    And the chat "about apples" is marked as the open one

  Scenario: A double click opens a chat, however slow the server
    Given the page is open with the echo model
    When I say "This one is about plums"
    And I press "New chat"
    Then the conversation does not show "about plums"
    When the server takes a second for everything
    And I double-click the chat "about plums"
    Then the conversation shows "This one is about plums"
    And the chat "about plums" is marked as the open one

  Scenario: Enter opens a chat, and the arrow keys only move
    Given the page is open with the echo model
    When I say "This one is about figs"
    And I press "New chat"
    Then the conversation does not show "about figs"
    When I say "This one is about dates"
    Then the list of chats has "about dates"
    When the server takes a second for everything
    And I go from the chat "about dates" to the next one with the keyboard
    And I press Enter
    Then the conversation shows "This one is about figs"
    And the focus is on the chat "about figs"
    When I go from the chat "about dates" to the next one with the keyboard
    And I press ArrowUp
    Then the focus is on the chat "about dates"
    And the conversation shows "This one is about figs"
    And the chat "about figs" is marked as the open one

  Scenario: Giving a chat a name
    Given the page is open with the echo model
    When I say "Let us plan a holiday"
    And I rename the chat "plan a holiday" to "Summer by the sea"
    Then the list of chats has "Summer by the sea"
    When I reload the page
    Then the list of chats has "Summer by the sea"

  Scenario: Deleting a chat, after a second thought
    Given the page is open with the echo model
    When I say "A secret to be forgotten"
    And I begin to delete the chat "secret to be forgotten" but think better of it
    Then the list of chats has "A secret to be forgotten"
    When I delete the chat "secret to be forgotten"
    Then the list of chats does not have "A secret to be forgotten"
    And no file in the house holds "A secret to be forgotten"

  Scenario: The list keeps still while it grows
    Given the page is open with the echo model
    And there are 12 chats
    When I scroll to the chat "chat number 3" and go to it with the keyboard
    And another chat is begun in a second tab
    Then the list of chats has "chat number 13"
    And what I see of the list has not moved
    And the focus is on the chat "chat number 3"

  Scenario: A question about a chat names it
    Given the page is open with the echo model
    When I say "This is the longest name that anybody ever gave to a chat"
    And I pick the chat "longest name" and press "Delete"
    Then I see "Delete “This is the longest nam…” for good"
    When I press "Cancel"
    Then the focus is on the actions of the chat "longest name"
    When I pick the chat "longest name" and press "Rename"
    Then I see "New name for “This is the longest nam…”"
    When I press "Cancel"
    Then the focus is on the actions of the chat "longest name"
    When I rename the chat "is the longest" to "A short one" and press Enter
    Then the list of chats has "A short one"
    And the focus is on the actions of the chat "A short one"
    When I delete the chat "A short one"
    Then the list of chats does not have "A short one"
    And the message box is empty and ready

  Scenario: A question waits for the server, and nobody is disturbed in the answer
    Given the page is open with the echo model
    When I say "Named in a hurry"
    And the server takes a second for everything
    And I pick the chat "in a hurry" and press "Rename"
    Then the new name can be written at once
    When I write "Named at leisure" over it and press Enter
    Then the list of chats has "Named at leisure"
    And the focus is on the actions of the chat "Named at leisure"
    When I pick the chat "at leisure" and press "Delete"
    Then the focus is on "Cancel"
    When I think better of it with Escape
    Then the focus is on the actions of the chat "Named at leisure"
    And the list of chats has "Named at leisure"

  Scenario: Exporting a chat
    Given the page is open with the echo model
    When I say "Words worth keeping"
    And I export the chat "Words worth keeping"
    Then the file that I get holds "Words worth keeping" twice

  Scenario: A chat that is deleted elsewhere
    Given the page is open with the echo model
    When I say "Here today and gone tomorrow"
    And I open the same chat in a second tab
    And I delete the chat "Here today"
    And I go back to the first tab
    Then I see "The chat that stood here was deleted."
    And Stacy greets me
    And the conversation does not show "Here today"
