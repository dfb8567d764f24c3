Feature: Finding
  Chats are put in order and found again, by name or by a word that was said.

  Scenario: Search in all chats
    Given the page is open with the echo model
    When I say "The lighthouse keeper feeds a heron"
    And I press "New chat"
    And I say "Nothing of that kind"
    And I search for "heron lighthouse"
    Then I see "2 hits"
    When I follow the hit "feeds a heron"
    Then the conversation shows "The lighthouse keeper feeds a heron"

  Scenario: A hit on another branch
    Given the page is open with a model that says "Oslo" and "Rome" in turn
    When I say "The capital of Atlantis?"
    Then the conversation reads "Atlantis" and then "Oslo"
    When I press "Another version"
    Then the conversation reads "Atlantis" and then "Rome"
    When I search for "oslo"
    Then I see "on another branch"
    When I follow the hit "Oslo"
    Then the conversation reads "Atlantis" and then "Oslo"

  Scenario: Folders and tags
    Given the page is open with the echo model
    When I say "A recipe for plum cake"
    And I put the chat "plum cake" into the folder "Kitchen"
    Then the folder "Kitchen" holds "A recipe for plum cake"
    When I give the chat "plum cake" the tags "sweet, autumn"
    Then the tag "autumn" can be pressed
    When I press "New chat"
    And I say "Bolts and nuts"
    Then the list of chats has "Bolts and nuts"
    When I press the tag "autumn"
    Then the list of chats does not have "Bolts and nuts"
    And the list of chats has "A recipe for plum cake"

  Scenario: Filtering the list
    Given the page is open with the echo model
    When I say "Concerning hedgehogs"
    And I press "New chat"
    And I say "Concerning squirrels"
    Then the list of chats has "Concerning squirrels"
    When I filter the chats by "hedgehogs"
    Then the list of chats does not have "Concerning squirrels"
    And the list of chats has "Concerning hedgehogs"
