Feature: Versions
  A reply is one of many; none of them is lost, and any can be gone back to.

  Scenario: Another version of a reply
    Given the page is open with a model that says "Heads it is" and "Tails it is" in turn
    When I say "Toss a coin"
    Then the conversation reads "Toss a coin" and then "Heads it is"
    When I press "Another version"
    Then the conversation reads "Toss a coin" and then "Tails it is"
    And the newest reply is version 2 of 2
    When I press "Previous version"
    Then the conversation reads "Toss a coin" and then "Heads it is"
    And the newest reply is version 1 of 2
    When I press the keys Alt+ArrowRight
    Then the conversation reads "Toss a coin" and then "Tails it is"

  Scenario: A question that was said otherwise is kept
    Given the page is open with a model that says "Oslo" and "Rome" in turn
    When I say "The capital of Norway?"
    Then the conversation reads "Norway" and then "Oslo"
    When I change my words to "The capital of Italy?"
    Then the conversation reads "Italy" and then "Rome"
    And my newest message is version 2 of 2
    When I go to the version before of my newest message
    Then the conversation reads "Norway" and then "Oslo"

  Scenario: Correcting what the character said
    Given the page is open with the echo model
    When I say "The moon is made of cheese"
    And I change the reply "made of cheese" to "The moon is made of rock"
    Then the conversation reads "made of cheese" and then "made of rock"
    And the newest reply is marked as edited
    When I reload the page
    Then the conversation reads "made of cheese" and then "made of rock"

  Scenario: Deleting a message, and all from there on
    Given the page is open with the echo model
    When I say "The first thing"
    And I say "The second thing"
    And I say "The third thing"
    And I pick the action "Delete from here on" for my message "The second thing", and agree
    Then the conversation reads "The first thing" and then "The first thing"
    And the conversation does not show "The second thing"
    And the conversation does not show "The third thing"
    When I pick the action "Delete this message" for the newest message
    Then there are 2 messages

  Scenario: A branch, and the tree of all of them
    Given the page is open with the echo model
    When I say "Let us talk about ships"
    And I say "And about harbours"
    And I pick the action "Branch from here" for the first reply
    Then I see "What you say next is a new branch from here."
    When I say "And about lighthouses"
    Then the conversation reads "about lighthouses" and then "about lighthouses"
    And the conversation does not show "about harbours"
    When I open the branches and choose "And about harbours"
    Then the conversation shows "about harbours"
    And the conversation does not show "about lighthouses"

  Scenario: A new chat from a message
    Given the page is open with the echo model
    When I say "Once there was a fox"
    And I say "And then it rained"
    And I pick the action "New chat from here" for the first reply
    Then the conversation shows "Once there was a fox"
    And the conversation does not show "And then it rained"
    And there are two chats in the list called "Once there was a fox"

  Scenario: Carrying a reply on
    Given the page is open with a model that says "To be" and " or not to be" in turn
    When I say "Quote something"
    Then the conversation reads "Quote something" and then "To be"
    When I press "Continue"
    Then the conversation reads "To be" and then "or not to be"
    And there are 3 messages

  Scenario: The beginning of a reply
    Given the page is open with the echo model
    When I begin the reply with "Well then:"
    And I say "what do you think?"
    Then the conversation reads "what do you think?" and then "Well then:"

  Scenario: Once more with other settings
    Given the page is open with the echo model
    When I say "Surprise me"
    And I retry with the preset "Creative" and seed 11
    Then the newest reply is version 2 of 2
    And the reply was drawn with temperature 1.1 and seed 11
    And the settings of the chat are as before

  Scenario: What else it could have said
    Given the page is open with a small real model
    When I say "Tell me a story"
    And I look at the token probabilities of the newest reply
    Then each token tells how likely it was
    When I take another token than the first
    Then the newest reply is version 2 of 2
    And it begins with the token that I chose
